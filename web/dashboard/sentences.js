// What is said of a subscription and of an event, in the language of the page.

import { day, money, t } from "./texts.js";

export function price({ amount, currency, billing_period: period }) {
  return `${money(amount, currency)} ${t(period === "yearly" ? "perYearly" : "perMonthly")}`;
}

export function until(subscription) {
  if (subscription.status === "trial") return t("trialUntil", { date: day(subscription.trial_end) });
  const date = day(subscription.current_period_end);
  if (["cancelled", "expired"].includes(subscription.status)) return t(`until.${subscription.status}`, { date });
  return t(subscription.cancel_at_period_end ? "endsOn" : "renewsOn", { date });
}

export function sentence({ name, payload }) {
  const words = {
    ...payload,
    job: t(`job.${payload.job_type}`),
    plan: payload.subscription?.plan_name ?? payload.plan,
    // An order's amount is a text with all the decimals of its coin, which browsers have no form for.
    money: typeof payload.amount === "number" ? money(payload.amount, payload.currency) : "",
    status: name.startsWith("subscription") ? t(`subscription.${payload.status}`) : payload.status,
  };
  return t(`event.${name}`, words);
}
