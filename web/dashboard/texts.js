// The dashboard's texts in each language, and the forms that numbers and times take there.

const TEXTS = {
  en: {
    skip: "Skip to content",
    pages: "Pages",
    language: "Language",
    dashboard: "Dashboard",
    signIn: "Sign in",
    signOut: "Sign out",
    email: "E-mail",
    password: "Password",
    newPassword: "Password, at least 8 characters",
    register: "Register a company",
    company: "Company",
    fullName: "Your name",
    start: "Start the trial",
    instance: "Instance",
    enter: "Enter instance",
    backUp: "Back up now",
    createSite: "Create the site",
    noAddress: "The site has no address yet",
    online: "Online: {count}",
    onlineNames: "Online ({count}): {names}",
    subscription: "Subscription",
    noSubscription: "None",
    tenants: "My tenants",
    jobs: "Provisioning",
    noJobs: "No jobs yet",
    log: "Log",
    cancel: "Cancel",
    retry: "Try again",
    notifications: "Notifications",
    noNotifications: "Nothing here",
    markRead: "Mark as read",
    unread: "{count} unread",
    plans: "Plans",
    period: "Billing period",
    monthly: "Monthly",
    yearly: "Yearly",
    perMonthly: "a month",
    perYearly: "a year",
    choosePlan: "Choose",
    currentPlan: "Your plan",
    events: "Live events",
    noEvents: "Waiting for something to happen",
    close: "Close",
    progressOf: "Progress: {name}",
    "connection.live": "Live",
    "connection.trying": "Connecting…",
    "connection.off": "Offline",
    "checkout.success": "Thank you. The payment is being confirmed; the subscription updates by itself.",
    "checkout.cancelled": "The checkout was left. Nothing was charged.",
    sessionOver: "The session is over. Please sign in again.",
    accessRevoked: "You no longer belong to this tenant.",
    tenantSuspended: "This tenant has been suspended.",
    tenantDeleted: "This tenant is to be deleted.",
    unreachable: "The server cannot be reached.",
    failed: "That did not work.",
    trialUntil: "Trial until {date}",
    endsOn: "Ends on {date}",
    renewsOn: "Next period from {date}",
    "until.cancelled": "Cancelled; paid until {date}",
    "until.expired": "Ended on {date}",
    "role.owner": "owner",
    "role.admin": "administrator",
    "role.member": "member",
    "role.user": "user",
    "role.buyer": "buyer",
    "tenant.pending": "pending",
    "tenant.provisioning": "being set up",
    "tenant.active": "active",
    "tenant.suspended": "suspended",
    "tenant.cancelled": "cancelled",
    "subscription.trial": "trial",
    "subscription.active": "active",
    "subscription.past_due": "payment due",
    "subscription.cancelled": "cancelled",
    "subscription.expired": "expired",
    "job.create_site": "Create the site",
    "job.update_site": "Update the site",
    "job.delete_site": "Delete the site",
    "job.backup_site": "Back up the site",
    "job.restore_site": "Restore the site",
    "state.queued": "queued",
    "state.running": "running",
    "state.retrying": "trying again",
    "state.succeeded": "done",
    "state.failed": "failed",
    "state.cancelled": "cancelled",
    "event.status:update": "{job}: {progress} %. {message}",
    "event.status:completed": "{job}: done",
    "event.status:failed": "{job}: {error}",
    "event.subscription:updated": "{plan}: {status}",
    "event.subscription:expiring": "Ends in {days_left} days",
    "event.payment:received": "{money} received",
    "event.order:paid": "Order paid: {amount} {currency}",
    "event.notification:new": "{title}",
  },
  ru: {
    skip: "К содержанию",
    pages: "Страницы",
    language: "Язык",
    dashboard: "Панель управления",
    signIn: "Войти",
    signOut: "Выйти",
    email: "Эл. почта",
    password: "Пароль",
    newPassword: "Пароль, не менее 8 символов",
    register: "Зарегистрировать компанию",
    company: "Компания",
    fullName: "Ваше имя",
    start: "Начать пробный период",
    instance: "Экземпляр",
    enter: "Войти в экземпляр",
    backUp: "Создать копию",
    createSite: "Создать сайт",
    noAddress: "У сайта пока нет адреса",
    online: "В сети: {count}",
    onlineNames: "В сети ({count}): {names}",
    subscription: "Подписка",
    noSubscription: "Нет",
    tenants: "Мои организации",
    jobs: "Развёртывание",
    noJobs: "Заданий пока нет",
    log: "Журнал",
    cancel: "Отменить",
    retry: "Повторить",
    notifications: "Уведомления",
    noNotifications: "Здесь пусто",
    markRead: "Прочитано",
    unread: "Непрочитанных: {count}",
    plans: "Тарифы",
    period: "Период оплаты",
    monthly: "Помесячно",
    yearly: "За год",
    perMonthly: "в месяц",
    perYearly: "в год",
    choosePlan: "Выбрать",
    currentPlan: "Ваш тариф",
    events: "События",
    noEvents: "Ждём событий",
    close: "Закрыть",
    progressOf: "Ход работы: {name}",
    "connection.live": "На связи",
    "connection.trying": "Подключение…",
    "connection.off": "Нет связи",
    "checkout.success": "Спасибо. Платёж подтверждается, подписка обновится сама.",
    "checkout.cancelled": "Оплата прервана. Деньги не списаны.",
    sessionOver: "Сеанс завершён. Войдите снова.",
    accessRevoked: "Вы больше не состоите в этой организации.",
    tenantSuspended: "Работа этой организации приостановлена.",
    tenantDeleted: "Эта организация будет удалена.",
    unreachable: "Сервер недоступен.",
    failed: "Не получилось.",
    trialUntil: "Пробный период до {date}",
    endsOn: "Закончится {date}",
    renewsOn: "Следующий период с {date}",
    "until.cancelled": "Отменена, оплачена до {date}",
    "until.expired": "Закончилась {date}",
    "role.owner": "владелец",
    "role.admin": "администратор",
    "role.member": "участник",
    "role.user": "пользователь",
    "role.buyer": "покупатель",
    "tenant.pending": "ожидает",
    "tenant.provisioning": "создаётся",
    "tenant.active": "работает",
    "tenant.suspended": "приостановлен",
    "tenant.cancelled": "закрыт",
    "subscription.trial": "пробная",
    "subscription.active": "активна",
    "subscription.past_due": "ждёт оплаты",
    "subscription.cancelled": "отменена",
    "subscription.expired": "закончилась",
    "job.create_site": "Создание сайта",
    "job.update_site": "Обновление сайта",
    "job.delete_site": "Удаление сайта",
    "job.backup_site": "Резервная копия",
    "job.restore_site": "Восстановление сайта",
    "state.queued": "в очереди",
    "state.running": "выполняется",
    "state.retrying": "повтор",
    "state.succeeded": "готово",
    "state.failed": "ошибка",
    "state.cancelled": "отменено",
    "event.status:update": "{job}: {progress} %. {message}",
    "event.status:completed": "{job}: готово",
    "event.status:failed": "{job}: {error}",
    "event.subscription:updated": "{plan}: {status}",
    "event.subscription:expiring": "Осталось дней: {days_left}",
    "event.payment:received": "Получено {money}",
    "event.order:paid": "Заказ оплачен: {amount} {currency}",
    "event.notification:new": "{title}",
  },
};

const KEPT = "language";

export let language = choose(localStorage.getItem(KEPT) ?? navigator.language.slice(0, 2));

function choose(wanted) {
  return wanted in TEXTS ? wanted : "en";
}

export function setLanguage(wanted) {
  language = choose(wanted);
  localStorage.setItem(KEPT, language);
}

// The text of a key with its {places} filled; a key that nobody foresaw (a state of a newer server) shows itself.
export function t(key, values = {}) {
  const text = TEXTS[language][key] ?? key.slice(key.indexOf(".") + 1);
  return text.replace(/\{(\w+)\}/g, (_, name) => String(values[name] ?? ""));
}

// Write the current language into everything below `root` that is marked for it.
export function translate(root) {
  for (const node of root.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  for (const node of root.querySelectorAll("[data-t-label]")) node.setAttribute("aria-label", t(node.dataset.tLabel));
  for (const node of root.querySelectorAll("[data-t-empty]")) node.dataset.empty = t(node.dataset.tEmpty);
}

export function money(amount, currency) {
  return new Intl.NumberFormat(language, { style: "currency", currency }).format(Number(amount));
}

export function day(text) {
  return text ? new Intl.DateTimeFormat(language, { dateStyle: "long" }).format(new Date(text)) : "";
}

export function moment(text) {
  const date = text ? new Date(text) : new Date();
  const sameDay = date.toDateString() === new Date().toDateString();
  return new Intl.DateTimeFormat(language, sameDay ? { timeStyle: "medium" } : { dateStyle: "medium", timeStyle: "short" })
    .format(date);
}
