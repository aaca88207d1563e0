// The page that the letter about an e-mail address leads to. It takes the token out of its address at once, so that it
// stays neither in the history nor on the screen, and sends it when the button is pressed: programs that look at the
// links of letters before people do must not confirm anything.

import { element, openPage, send } from "../letters/page.js";

const TEXTS = {
  en: {
    title: "Confirm your e-mail address",
    send: "Confirm",
    done: "Your address is confirmed. You can close this page.",
    noToken: "This address is not complete. Open the link of the letter again.",
    away: "The server cannot be reached. Try again.",
    AUTH_ERROR: "This link was used or is too old. Ask for another letter.",
    ALREADY_EXISTS: "Another account has this address by now.",
    RATE_LIMITED: "Too many attempts. Wait a minute and try again.",
    other: "That did not work. Try again.",
  },
  ru: {
    title: "Подтверждение адреса электронной почты",
    send: "Подтвердить",
    done: "Адрес подтверждён. Эту страницу можно закрыть.",
    noToken: "Адрес неполный. Откройте ссылку из письма ещё раз.",
    away: "Сервер недоступен. Попробуйте ещё раз.",
    AUTH_ERROR: "Ссылка уже использована или устарела. Запросите новое письмо.",
    ALREADY_EXISTS: "У другой учётной записи уже есть этот адрес.",
    RATE_LIMITED: "Слишком много попыток. Подождите минуту и попробуйте ещё раз.",
    other: "Не получилось. Попробуйте ещё раз.",
  },
};

const { token, say } = openPage(TEXTS);

element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  send("/api/v1/auth/verify-email", { token }, say).catch(() => say("away"));
});
