// Wires the page: signs in with the token of the link, which then stays in this module's memory only, and joins the one connection
// with the views. A token that is refused, now or later, leads back to the sign-in screen with the reason.
import { createConfigs } from "./configs.js";
import { createConnection } from "./connection.js";
import { icon } from "./dom.js";
import { createEntities } from "./entities.js";
import { createHttp } from "./http.js";
import { createInbox } from "./inbox.js";
import { createInboxView } from "./inbox-view.js";
import { createMail } from "./mail.js";
import { problemView } from "./problem-view.js";
import { createSilences } from "./silences.js";
import { createToasts } from "./toasts.js";

const byId = (id) => document.getElementById(id);
const signIn = byId("sign-in"), app = byId("app"), signInSaid = signIn.querySelector(".said");
const STATUS = { connecting: "Connecting…", live: "Live", "catching-up": "Catching up…", offline: "Offline, trying again", denied: "Signed out" };
let token = takeToken(), connection = null;

function takeToken() {
  const found = new URLSearchParams(location.hash.slice(1)).get("token");
  if (found) history.replaceState(null, "", location.pathname + location.search); // not in the history, not in a copied address
  return found;
}
function askForToken(...said) {
  connection?.stop();
  app.hidden = true;
  signIn.hidden = false;
  signInSaid.replaceChildren(...said);
  byId("token").focus();
}
const denied = (reason) => askForToken(problemView({ message: "Please sign in again", body: { title: "Please sign in again", detail: reason } }));
const call = createHttp({ token: () => token, denied });

signIn.querySelector("form").addEventListener("submit", (e) => {
  e.preventDefault();
  const given = byId("token").value.trim().replace(/^.*#token=/, ""); // the whole link is as good as the token
  byId("token").value = "";
  if (connection) return reopen(given); // another user's rows and positions must not live on
  token = given;
  begin();
});
function reopen(given) {
  history.replaceState(null, "", `#token=${encodeURIComponent(given)}`);
  location.reload();
}
addEventListener("hashchange", () => { const given = takeToken(); if (given) reopen(given); });

async function begin() {
  try {
    start((await call("GET", "/v1/me")).json);
  } catch (problem) {
    if (problem.status === 401) return; // `denied` has said so
    askForToken(problemView(problem.status ? problem : { message: "Tidings can't be reached", body: { detail: "Is it running? The token is still here: press the button to try again." } }));
    byId("token").value = token;
  }
}

function start(me) {
  signInSaid.replaceChildren();
  signIn.hidden = true;
  app.hidden = false;
  byId("user").textContent = me.user;
  connection = createConnection({ url: new URL("/v1/ws", location.href.replace(/^http/, "ws")).href.split("#")[0], token: async () => token });
  const toasts = createToasts(byId("toasts"), byId("polite"), byId("assertive"));
  const fetchPage = async (query) => {
    const given = Object.entries(query).filter(([, v]) => v !== undefined && v !== null);
    return (await call("GET", `/v1/notices?${new URLSearchParams(given)}`)).json;
  };
  const inbox = createInbox({ connection, fetchPage });
  byId("bell").prepend(icon("bell"));
  byId("inbox").querySelector(".close").append(icon("close"));
  const silences = createSilences({ call, place: byId("inbox").querySelector(".silences"), toasts, user: me.user });
  createInboxView({ inbox, toasts, silences, bell: byId("bell"), panel: byId("inbox") });
  const entities = createEntities({ connection, view: byId("entities") });
  const configs = createConfigs({ call, view: byId("configs"), toasts, me: () => me });
  const mail = createMail({ call, view: byId("mail"), tab: byId("tab-mail") });
  tabs({ configs: () => configs.load(), mail: () => mail.look() });

  connection.onStatus((status, reason) => {
    byId("status").textContent = STATUS[status];
    byId("status").dataset.status = status;
    if (status === "denied") denied(reason);
  });
  addEventListener("online", () => connection.wake());
  document.addEventListener("visibilitychange", () => { if (!document.hidden) connection.wake(); });
  inbox.start();
  entities.types(me.entity_types ?? []);
  connection.start();
  if (me.demo !== false) demo(mail, toasts).catch((problem) => toasts.show({ title: "The demo can't be reached", text: problem.message }));
}

async function demo(mail, toasts) {
  const button = byId("stress");
  let offers;
  try { offers = (await call("GET", "/demo")).json; } catch (problem) { if (problem.status === 404) return; throw problem; }
  button.hidden = !offers.stress;
  button.addEventListener("click", async () => {
    button.disabled = true;
    try {
      await call("POST", "/demo/stress");
      toasts.show({ title: "This machine is being made busy", text: "The notice follows when it has been so for some seconds.", severity: "info" });
      setTimeout(() => { button.disabled = false; }, 10_000);
    } catch (problem) {
      button.disabled = false;
      toasts.show({ title: problem.message, text: problem.body?.detail, severity: "error" });
    }
  });
  await mail.offer();
}

function tabs(onShow) {
  const all = [...document.querySelectorAll(".tabs > [aria-controls]:not([data-tab])")];
  function show(tab) {
    for (const t of all) {
      t.setAttribute("aria-selected", String(t === tab));
      t.tabIndex = t === tab ? 0 : -1;
      byId(t.getAttribute("aria-controls")).hidden = t !== tab;
    }
    onShow[tab.getAttribute("aria-controls")]?.();
  }
  for (const tab of all) {
    tab.addEventListener("click", () => show(tab));
    tab.addEventListener("keydown", (e) => {
      const by = { ArrowRight: 1, ArrowLeft: -1 }[e.key], seen = all.filter((t) => !t.hidden);
      if (!by) return;
      const next = seen[(seen.indexOf(tab) + by + seen.length) % seen.length];
      show(next);
      next.focus();
    });
  }
}

if (token) begin(); else askForToken();
