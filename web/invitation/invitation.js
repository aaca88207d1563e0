// The page that an invitation's letter leads to: it takes the letter's token out of its address at once, so that it stays
// neither in the history nor on the screen, tells who invites, and takes the place for a new person, for somebody with an
// account, or for whoever is signed in to the dashboard of this window.

import { ApiError, call, session, SessionOver } from "../dashboard/api.js";

const TEXTS = {
  en: {
    title: "Invitation",
    invites: "{inviter} invites {email} to join {tenant}.",
    invitesUnnamed: "{email} is invited to join {tenant}.",
    acceptAs: "Accept as {name}",
    fullName: "Your name",
    newPassword: "Password, at least 8 characters",
    join: "Accept the invitation",
    hasAccount: "I have an account already",
    password: "The password of your account",
    signIn: "Sign in and accept",
    isNew: "I have no account yet",
    code: "The code of your authenticator app, or a recovery code",
    dashboard: "Open the dashboard",
    accepted: "You have joined.",
    revoked: "This invitation is no longer open.",
    expired: "This invitation is too old. Ask for another one.",
    noToken: "This address is not complete. Open the link of the letter again.",
    away: "The server cannot be reached. Try again.",
    NOT_FOUND: "There is no such invitation. If you were invited again, open the newest letter.",
    CONFLICT: "This invitation was used or taken back.",
    TENANT_ERROR: "This invitation is too old. Ask for another one.",
    ALREADY_EXISTS: "There is an account with this address. Sign in with it.",
    PERMISSION_DENIED: "This invitation was sent to another address than that of your account.",
    AUTH_ERROR: "The password is not right. Try again.",
    WRONG_CODE: "The code is not right. Try again.",
    CHALLENGE_REFUSED: "That took too long. Sign in once more.",
    PASSWORD_BREACHED: "This password is known from a data breach. Choose another one.",
    RATE_LIMITED: "Too many attempts. Wait a minute and try again.",
    other: "That did not work. Try again.",
  },
  ru: {
    title: "Приглашение",
    invites: "{inviter} приглашает {email} присоединиться к {tenant}.",
    invitesUnnamed: "{email}: вас приглашают присоединиться к {tenant}.",
    acceptAs: "Принять как {name}",
    fullName: "Ваше имя",
    newPassword: "Пароль, не короче 8 символов",
    join: "Принять приглашение",
    hasAccount: "У меня уже есть учётная запись",
    password: "Пароль вашей учётной записи",
    signIn: "Войти и принять",
    isNew: "У меня ещё нет учётной записи",
    code: "Код из приложения-аутентификатора или резервный код",
    dashboard: "Открыть панель",
    accepted: "Вы присоединились.",
    revoked: "Это приглашение больше не действует.",
    expired: "Приглашение устарело. Попросите новое.",
    noToken: "Адрес неполный. Откройте ссылку из письма ещё раз.",
    away: "Сервер недоступен. Попробуйте ещё раз.",
    NOT_FOUND: "Такого приглашения нет. Если вас пригласили ещё раз, откройте последнее письмо.",
    CONFLICT: "Приглашение уже использовано или отозвано.",
    TENANT_ERROR: "Приглашение устарело. Попросите новое.",
    ALREADY_EXISTS: "Учётная запись с этим адресом уже есть. Войдите с ней.",
    PERMISSION_DENIED: "Приглашение отправлено на другой адрес, не на адрес вашей учётной записи.",
    AUTH_ERROR: "Неверный пароль. Попробуйте ещё раз.",
    WRONG_CODE: "Неверный код. Попробуйте ещё раз.",
    CHALLENGE_REFUSED: "Время вышло. Войдите ещё раз.",
    PASSWORD_BREACHED: "Этот пароль известен из утечек. Выберите другой.",
    RATE_LIMITED: "Слишком много попыток. Подождите минуту и попробуйте ещё раз.",
    other: "Не получилось. Попробуйте ещё раз.",
  },
};

const FORMS = ["signed-in", "newcomer", "member", "second-factor"];

const language = navigator.language.startsWith("ru") ? "ru" : "en";
const t = (key) => TEXTS[language][key] ?? TEXTS[language].other;
const filled = (key, values) => t(key).replace(/\{(\w+)\}/g, (_, name) => values[name]);
const element = (id) => document.getElementById(id);
const say = (key) => (element("message").textContent = t(key));

const token = window.location.pathname.split("/")[2] ?? "";
window.history.replaceState(null, "", "/invitations");
document.documentElement.lang = language;
document.title = t("title");
for (const node of document.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);

let email = "";
let challenge = "";

// Show one form, or none, and forget what was said before.
function show(...ids) {
  for (const id of FORMS) element(id).hidden = !ids.includes(id);
  element("message").textContent = "";
}

async function accept(form) {
  const { data } = await call("POST", `invitations/${token}/accept`, form);
  session.keep(data);
  show();
  say("accepted");
  element("dashboard").hidden = false;
}

async function signIn(path, form) {
  const { data } = await call("POST", path, form);
  if (data.challenge_token) {
    challenge = data.challenge_token;
    show("second-factor");
    return;
  }
  session.keep(data);
  await accept();
}

// Whoever is signed in here may be meant; if not, somebody new, or somebody with another account, is.
async function greet() {
  const { data: offer } = await call("GET", `invitations/${token}`);
  email = offer.email;
  const names = { inviter: offer.inviter_name, email, tenant: offer.tenant_name };
  element("offer").textContent = filled(offer.inviter_name ? "invites" : "invitesUnnamed", names);
  if (offer.state !== "pending") return say(offer.state === "accepted" ? "CONFLICT" : offer.state);
  const me = session.open ? (await call("GET", "auth/me")).data : null;
  if (me?.email.toLowerCase() !== email.toLowerCase()) return show("newcomer");
  element("accept-as").textContent = filled("acceptAs", { name: me.full_name });
  return show("signed-in");
}

async function attempt(deed) {
  try {
    await deed();
  } catch (error) {
    if (error instanceof SessionOver) {
      // What this window remembered of a sign-in is void: begin anew without it.
      session.drop();
      return attempt(greet);
    }
    if (!(error instanceof ApiError)) return say("away");
    if (error.code === "ALREADY_EXISTS" || error.code === "CHALLENGE_REFUSED") show("member");
    say(error.code);
  }
}

function onSubmit(id, deed) {
  element(id).addEventListener("submit", (event) => {
    event.preventDefault();
    // Whoever fills in a form is not whoever this window is signed in as.
    if (id !== "signed-in") session.drop();
    attempt(() => deed(Object.fromEntries(new FormData(event.target))));
  });
}

onSubmit("signed-in", () => accept());
onSubmit("newcomer", accept);
onSubmit("member", ({ password }) => signIn("auth/login", { email, password }));
onSubmit("second-factor", ({ code }) => signIn("auth/verify-2fa", { challenge_token: challenge, code }));
element("has-account").addEventListener("click", () => show("member"));
element("is-new").addEventListener("click", () => show("newcomer"));

if (token) attempt(greet);
else say("noToken");
