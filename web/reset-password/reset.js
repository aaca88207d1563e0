// The page that the letter about a forgotten password leads to: it takes the letter's token out of its address at once,
// so that it stays neither in the history nor on the screen, and sends it with the new password.

import { element, openPage, send } from "../letters/page.js";

const TEXTS = {
  en: {
    title: "Reset your password",
    newPassword: "New password, at least 8 characters",
    again: "Once more",
    send: "Set the password",
    differ: "The two passwords differ.",
    done: "Your password is set. Sign in with it; every other device was signed out.",
    noToken: "This address is not complete. Open the link of the letter again.",
    away: "The server cannot be reached. Try again.",
    AUTH_ERROR: "This link was used or is too old. Ask for another letter.",
    PASSWORD_BREACHED: "This password is known from a data breach. Choose another one.",
    RATE_LIMITED: "Too many attempts. Wait a minute and try again.",
    other: "That did not work. Try again.",
  },
  ru: {
    title: "Восстановление пароля",
    newPassword: "Новый пароль, не короче 8 символов",
    again: "Ещё раз",
    send: "Задать пароль",
    differ: "Пароли не совпадают.",
    done: "Пароль задан. Войдите с ним; на всех остальных устройствах выполнен выход.",
    noToken: "Адрес неполный. Откройте ссылку из письма ещё раз.",
    away: "Сервер недоступен. Попробуйте ещё раз.",
    AUTH_ERROR: "Ссылка уже использована или устарела. Запросите новое письмо.",
    PASSWORD_BREACHED: "Этот пароль известен из утечек. Выберите другой.",
    RATE_LIMITED: "Слишком много попыток. Подождите минуту и попробуйте ещё раз.",
    other: "Не получилось. Попробуйте ещё раз.",
  },
};

const { token, say } = openPage(TEXTS);

element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  const password = element("password").value;
  if (password !== element("again").value) return say("differ");
  send("/api/v1/auth/reset-password", { token, new_password: password }, say).catch(() => say("away"));
});
