// The page that the letter about a registration leads to. It takes the token out of its address at once, so that it stays
// neither in the history nor on the screen, and sends it when the button is pressed: programs that look at the links of
// letters before people do must not found a company.

import { ApiError, open, session } from "../dashboard/api.js";
import { element, openPage } from "../letters/page.js";

const TEXTS = {
  en: {
    title: "Finish your registration",
    send: "Finish",
    dashboard: "Open the dashboard",
    done: "Your account is ready, and you are signed in here.",
    noToken: "This address is not complete. Open the link of the letter again.",
    away: "The server cannot be reached. Try again.",
    AUTH_ERROR: "This link was used or is too old. Register once more.",
    ALREADY_EXISTS: "You have an account already. Sign in with it.",
    RATE_LIMITED: "Too many attempts. Wait a minute and try again.",
    other: "That did not work. Try again.",
  },
  ru: {
    title: "Завершение регистрации",
    send: "Завершить",
    dashboard: "Открыть панель",
    done: "Учётная запись готова, вы вошли.",
    noToken: "Адрес неполный. Откройте ссылку из письма ещё раз.",
    away: "Сервер недоступен. Попробуйте ещё раз.",
    AUTH_ERROR: "Ссылка уже использована или устарела. Зарегистрируйтесь ещё раз.",
    ALREADY_EXISTS: "У вас уже есть учётная запись. Войдите с ней.",
    RATE_LIMITED: "Слишком много попыток. Подождите минуту и попробуйте ещё раз.",
    other: "Не получилось. Попробуйте ещё раз.",
  },
};

const { token, say } = openPage(TEXTS);

async function finish() {
  // Whoever finishes a registration is not whoever this window is signed in as.
  session.drop();
  await open("auth/register/confirm", { token });
  element("form").hidden = true;
  element("dashboard").hidden = false;
  say("done");
}

element("form").addEventListener("submit", (event) => {
  event.preventDefault();
  finish().catch((error) => say(error instanceof ApiError ? error.code : "away"));
});
