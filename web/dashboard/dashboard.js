// The dashboard: what REST tells is the state, what the socket tells moves it, and everything is shown as plain text.

import { SessionOver, call, open, session } from "./api.js";
import { badge, element, rows, say, textElement } from "./dom.js";
import { connect } from "./live.js";
import { readAll } from "./reading.js";
import { price, sentence, until } from "./sentences.js";
import { language, moment, money, setLanguage, t, translate } from "./texts.js";

const FEED_LENGTH = 100;
const LOG_LENGTH = 200;
const DRAW_MS = 50;
const UNFINISHED = new Set(["queued", "running", "retrying"]);
const MANAGERS = new Set(["owner", "admin"]);
const REVOKED = { TENANT_ACCESS_REVOKED: "accessRevoked", TENANT_SUSPENDED: "tenantSuspended", TENANT_DELETED: "tenantDeleted" };

const nothing = () => ({
  me: null,
  tenant: null,
  subscription: null,
  plans: [],
  jobs: new Map(),
  notifications: [],
  unread: 0,
  members: new Map(),
  // What only the socket tells: who is online, and by the job's id what a running job has printed.
  online: null,
  logs: new Map(),
  events: [],
});
let state = nothing();
let connection = "off";
let live = null;

// ---------------------------------------------------------------------------------------------------- showing

function show() {
  const inside = session.open;
  document.documentElement.lang = language;
  translate(document);
  element("language").value = language;
  element("door").hidden = inside;
  for (const id of ["house", "who", "connection", "sign-out"]) element(id).hidden = !inside;
  element("connection").dataset.state = connection;
  element("connection").textContent = t(`connection.${connection}`);
  // After signing out the rest is empty and hidden: nothing of whoever left stays in the page.
  element("who").textContent = state.me?.full_name ?? "";
  showInstance();
  showOnline();
  showSubscription();
  showTenants();
  showJobs();
  showNotifications();
  showPlans();
  showEvents();
}

// A burst of events, such as all that was missed during a drop, is drawn at once.
let drawing = null;

function showSoon() {
  drawing ??= setTimeout(() => {
    drawing = null;
    show();
  }, DRAW_MS);
}

function showInstance() {
  const { tenant } = state;
  badge(element("instance-status"), "tenant", tenant?.status);
  element("instance-name").textContent = tenant?.name ?? "";
  element("instance-address").textContent = tenant?.erpnext_site_url ?? t("noAddress");
  element("enter").disabled = !tenant?.erpnext_site_url;
  element("work").textContent = t(tenant?.erpnext_site_url ? "backUp" : "createSite");
  element("work").disabled = !manages() || busy();
}

// How many of the tenant's people are here; owners and admins are told who.
function showOnline() {
  const { online, users = [] } = state.online ?? {};
  const names = users.map((id) => state.members.get(id)).filter(Boolean).join(", ");
  element("online").textContent = online ? t(names ? "onlineNames" : "online", { count: online, names }) : "";
}

function showSubscription() {
  const { subscription } = state;
  badge(element("subscription-status"), "subscription", subscription?.status);
  element("subscription-plan").textContent = subscription?.plan_name ?? t("noSubscription");
  element("subscription-price").textContent = subscription?.amount > 0 ? price(subscription) : "";
  element("subscription-until").textContent = subscription ? until(subscription) : "";
}

function showTenants() {
  rows("tenants", "tenant-row", state.me?.tenants ?? [], (tenant) => tenant.tenant_id, (part, tenant) => {
    const current = tenant.tenant_id === state.tenant?.id;
    part("name").textContent = tenant.tenant_name;
    part("role").textContent = t(`role.${tenant.role}`);
    part("choose").setAttribute("aria-current", String(current));
    part("choose").disabled = current;
    part("choose").onclick = deed(() => switchTo(tenant.tenant_id));
  });
}

function showJobs() {
  rows("jobs", "job-row", [...state.jobs.values()], (job) => job.id, (part, job) => {
    const name = t(`job.${job.job_type}`);
    part("name").textContent = name;
    badge(part("state"), "state", job.state);
    part("progress").value = job.progress;
    part("progress").setAttribute("aria-label", t("progressOf", { name }));
    part("message").textContent = job.error ?? (UNFINISHED.has(job.state) ? job.message : "") ?? "";
    part("time").textContent = moment(job.completed_at ?? job.started_at ?? job.created_at);
    showLog(part("log"), part("lines"), state.logs.get(job.id) ?? []);
    part("cancel").hidden = !manages() || !UNFINISHED.has(job.state);
    part("cancel").onclick = deed(() => renewJob(job, "cancel"));
    part("retry").hidden = !manages() || !["failed", "cancelled"].includes(job.state);
    part("retry").onclick = deed(() => renewJob(job, "retry"));
  });
}

function showLog(details, node, lines) {
  const text = lines.map((line) => line.text).join("\n");
  details.hidden = !text;
  // Untouched when nothing was added, so that what somebody marked or scrolled to stays.
  if (node.textContent === text) return;
  node.textContent = text;
  node.scrollTop = node.scrollHeight;
}

function showNotifications() {
  element("unread").hidden = state.unread === 0;
  element("unread").textContent = t("unread", { count: state.unread });
  rows("notifications", "notification-row", state.notifications, (item) => item.id, (part, item, row) => {
    row.dataset.read = String(item.read);
    part("title").textContent = item.title;
    part("message").textContent = item.message;
    part("time").textContent = moment(item.created_at);
    part("read").hidden = item.read;
    part("read").onclick = deed(() => markRead(item));
  });
}

function showPlans() {
  const period = document.querySelector("[name=period]:checked").value;
  const sold = state.plans.filter((plan) => plan.price_monthly > 0);
  rows("plans", "plan-row", sold, (plan) => plan.id, (part, plan, row) => {
    const current = plan.id === state.subscription?.plan_id && period === state.subscription.billing_period;
    row.setAttribute("aria-current", String(current));
    part("name").textContent = plan.name;
    part("price").textContent = money(period === "yearly" ? plan.price_yearly : plan.price_monthly, plan.currency);
    part("per").textContent = t(period === "yearly" ? "perYearly" : "perMonthly");
    part("description").textContent = plan.description;
    part("features").replaceChildren(...plan.features.map((feature) => textElement("li", feature)));
    part("choose").textContent = t(current ? "currentPlan" : "choosePlan");
    part("choose").disabled = current || !manages();
    part("choose").setAttribute("aria-label", `${part("choose").textContent}: ${plan.name}`);
    part("choose").onclick = deed(() => checkOut(plan, period));
  });
}

function showEvents() {
  rows("events", "event-row", state.events, (event) => event.id, (part, event) => {
    part("name").textContent = event.name;
    part("time").textContent = moment(event.at);
    part("text").textContent = sentence(event);
  });
}

const busy = () => [...state.jobs.values()].some((job) => UNFINISHED.has(job.state));
const manages = () => MANAGERS.has(state.me?.tenants.find((item) => item.tenant_id === state.tenant?.id)?.role);

// ----------------------------------------------------------------------------------------------------- reading

let reading = null;
let readAgain = false;
// Who is looking at which tenant; what was asked by an earlier one is not shown to the next.
let era = 0;

// Read everything anew. Asked while a reading is under way, another follows it: its answers may be from before the ask.
function read() {
  if (reading) {
    readAgain = true;
    return;
  }
  const asked = era;
  reading = readAll()
    .then((found) => {
      if (asked === era) state = { ...state, ...found };
    })
    .catch((error) => asked === era && complain(error))
    .finally(() => {
      reading = null;
      show();
      if (readAgain && session.open) read();
      readAgain = false;
    });
}

// ----------------------------------------------------------------------------------------------------- hearing

const listener = {
  state(name) {
    connection = name;
    show();
  },
  reload: read,
  over: (code) => signOut(t(REVOKED[code] ?? "sessionOver")),
  event(name, payload) {
    state.events = [{ id: payload.event_id, name, payload, at: new Date() }, ...state.events].slice(0, FEED_LENGTH);
    (HEARD[name] ?? (() => {}))(payload);
    showSoon();
  },
  log({ job_id: id, lines }) {
    state.logs.set(id, [...(state.logs.get(id) ?? []), ...lines].slice(-LOG_LENGTH));
    showSoon();
  },
  online(payload) {
    state.online = payload;
    showSoon();
  },
};

const HEARD = {
  "status:update": moveJob,
  "status:completed"(payload) {
    moveJob(payload);
    read();
  },
  "status:failed"(payload) {
    moveJob(payload);
    read();
  },
  "subscription:updated"(payload) {
    state.subscription = payload.subscription;
    read();
  },
  "notification:new"(payload) {
    state.notifications = [payload, ...state.notifications.filter((item) => item.id !== payload.id)];
    state.unread += 1;
    // A list that is on its way may be from before this one.
    if (reading) read();
  },
};

function moveJob({ job_id: id, event_id: _, seq: __, tenant_id: ___, ...changes }) {
  const job = state.jobs.get(id);
  if (job) state.jobs.set(id, { ...job, ...changes });
  else read();
}

// ------------------------------------------------------------------------------------------------------- doing
//
// A deed shows its outcome at once and reads again: a reading under way may hold answers from before the deed.

// Wrap what a control does: it cannot be pressed again while it is being done, and what goes wrong is said.
function deed(work) {
  return async (event) => {
    event.preventDefault();
    const button = event.submitter ?? event.currentTarget;
    button.disabled = true;
    try {
      await work(event);
    } catch (error) {
      complain(error);
    } finally {
      button.disabled = false;
      show();
    }
  };
}

function complain(error) {
  if (error instanceof SessionOver) return signOut(t("sessionOver"));
  if (error instanceof TypeError) return say(t("unreachable"));
  return say(error.message || t("failed"));
}

async function enterBy(path, form) {
  const opened = await open(path, Object.fromEntries(new FormData(form)));
  form.reset();
  if (!opened) return say(t("letterSent"), "good");
  begin();
  element("content").focus();
}

function forget() {
  era += 1;
  state = nothing();
}

function begin() {
  element("messages").replaceChildren();
  forget();
  live = connect(listener);
  show();
  read();
}

function signOut(text) {
  live?.close();
  live = null;
  session.drop();
  forget();
  connection = "off";
  show();
  if (text) say(text, "warn");
}

async function switchTo(tenantId) {
  const { data } = await call("POST", "auth/switch-tenant", { tenant_id: tenantId });
  session.keep(data);
  live.close();
  begin();
}

async function renewJob(job, verb) {
  const { data } = await call("POST", `provisioning/jobs/${job.id}/${verb}`);
  state.jobs.set(data.id, data);
  read();
}

// A site that is there is backed up, one that is not is created.
async function startJob() {
  const type = state.tenant.erpnext_site_url ? "backup_site" : "create_site";
  const { data } = await call("POST", "provisioning/jobs", { job_type: type });
  state.jobs = new Map([[data.id, data], ...state.jobs]);
  read();
}

async function markRead(item) {
  await live.ask("notification_read", { notification_id: item.id });
  item.read = true;
  state.unread = Math.max(0, state.unread - 1);
  read();
}

async function checkOut(plan, period) {
  const here = `${location.origin}/dashboard`;
  const { data } = await call("POST", "billing/checkout", {
    plan_id: plan.id,
    billing_period: period,
    success_url: `${here}?checkout=success`,
    cancel_url: `${here}?checkout=cancelled`,
  });
  location.assign(webAddress(data.checkout_url));
}

async function enterInstance() {
  // Opened at once, while the browser still knows that a person has pressed a button; cut off from this page.
  const tab = window.open("about:blank");
  try {
    const { data } = await call("POST", "sso/erpnext/token");
    const address = webAddress(data.sso_url);
    if (!tab) return location.assign(address);
    tab.opener = null;
    tab.location.replace(address);
  } catch (error) {
    tab?.close();
    throw error;
  }
}

// Follow nothing but web addresses, whatever the server may have been told.
function webAddress(text) {
  const address = new URL(text, location.origin);
  if (!["http:", "https:"].includes(address.protocol)) throw new Error(t("failed"));
  return address.href;
}

// ---------------------------------------------------------------------------------------------------- starting

element("sign-in").onsubmit = deed((event) => enterBy("auth/login", event.target));
element("register").onsubmit = deed((event) => enterBy("auth/register", event.target));
element("sign-out").onclick = deed(async () => {
  // First of all the socket: it would be told that the session has ended.
  live.close();
  await call("POST", "auth/logout").catch(() => {});
  signOut();
});
element("enter").onclick = deed(enterInstance);
element("work").onclick = deed(startJob);
for (const choice of document.querySelectorAll("[name=period]")) choice.onchange = showPlans;
element("language").onchange = (event) => {
  setLanguage(event.target.value);
  show();
};

if (session.open) begin();
else show();

const checkout = new URLSearchParams(location.search).get("checkout");
if (checkout) {
  history.replaceState(null, "", location.pathname);
  say(t(checkout === "success" ? "checkout.success" : "checkout.cancelled"), checkout === "success" ? "good" : "warn");
}
