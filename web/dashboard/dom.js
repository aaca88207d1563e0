// Small tools for the page. Whatever the server says enters it as text, never as markup.

import { t, translate } from "./texts.js";

const MESSAGE_MS = 8000;
const TONES = {
  active: "good",
  succeeded: "good",
  trial: "warn",
  provisioning: "warn",
  running: "warn",
  retrying: "warn",
  past_due: "bad",
  failed: "bad",
  cancelled: "bad",
  expired: "bad",
  suspended: "bad",
};

export const element = (id) => document.getElementById(id);

export function badge(node, kind, value) {
  node.hidden = !value;
  node.textContent = value ? t(`${kind}.${value}`) : "";
  node.dataset.tone = TONES[value] ?? "calm";
}

export function textElement(name, text) {
  const node = document.createElement(name);
  node.textContent = text;
  return node;
}

// Make the list `id` show `items` in their order. A row is kept as long as its item is there, so that focus stays in it.
export function rows(id, template, items, key, fill) {
  const list = element(id);
  const kept = new Map([...list.children].map((row) => [row.dataset.key, row]));
  const wanted = items.map((item) => {
    const row = kept.get(key(item)) ?? element(template).content.firstElementChild.cloneNode(true);
    row.dataset.key = key(item);
    translate(row);
    fill((name) => row.querySelector(`[data-part="${name}"]`), item, row);
    return row;
  });
  for (const row of [...list.children]) if (!wanted.includes(row)) row.remove();
  wanted.forEach((row, place) => {
    if (list.children[place] !== row) list.insertBefore(row, list.children[place] ?? null);
  });
}

export function say(text, tone = "bad") {
  const row = element("message-row").content.firstElementChild.cloneNode(true);
  row.dataset.tone = tone;
  row.querySelector('[data-part="text"]').textContent = text;
  row.querySelector('[data-part="close"]').setAttribute("aria-label", t("close"));
  row.querySelector('[data-part="close"]').onclick = () => row.remove();
  element("messages").replaceChildren(row);
  setTimeout(() => row.remove(), MESSAGE_MS);
}
