// What the pages that letters lead to have in common. Each takes the token out of its address at once, so that it stays
// neither in the history nor on the screen, and speaks the reader's language as far as its texts do.

export const element = (id) => document.getElementById(id);

// Shows a page in the reader's language. Returns the letter's token, null where the address has none, and what says a
// text by its key, of which an unknown one is `other`.
export function openPage(texts) {
  const language = navigator.language.startsWith("ru") ? "ru" : "en";
  const t = (key) => texts[language][key] ?? texts[language].other;
  const say = (key) => (element("message").textContent = t(key));
  const token = new URLSearchParams(window.location.search).get("token");
  window.history.replaceState(null, "", window.location.pathname);
  document.documentElement.lang = language;
  document.title = t("title");
  for (const node of document.querySelectorAll("[data-t]")) node.textContent = t(node.dataset.t);
  if (!token) {
    element("form").hidden = true;
    say("noToken");
  }
  return { token, say };
}

// Sends what the letter's token is for; says `done`, or the code of what is wrong.
export async function send(path, body, say) {
  const answer = await fetch(path, {
    method: "POST",
    headers: { "Content-Type": "application/json" },
    body: JSON.stringify(body),
  });
  if (answer.ok) {
    element("form").hidden = true;
    return say("done");
  }
  const refusal = await answer.json().catch(() => null);
  return say(refusal?.error?.code ?? "other");
}
