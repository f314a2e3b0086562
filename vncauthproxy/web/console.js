// The console's page. The ticket is what stands after the # of the URL; it opens the console
// once, and with it come facts about the session and a ticket to go on with after a break.

import RFB from "./novnc/core/rfb.js";
import keysyms from "./novnc/core/input/keysymdef.js";
import KeyTable from "./novnc/core/input/keysym.js";
import { Channel } from "./channel.js";

const REFUSED = 4001;
const ENDED = 4003;
const TIME_IS_UP = 4004;
const FIRST_DELAY = 1000;
const LONGEST_DELAY = 15000;
const ATTEMPTS = 30;
const KEY_PAUSE = 8;

const NAMED_KEYS = { "\n": KeyTable.XK_Return, "\r": KeyTable.XK_Return, "\t": KeyTable.XK_Tab };

const TITLES = {
  [REFUSED]: "This link doesn't open a console",
  [ENDED]: "This session has ended",
  [TIME_IS_UP]: "This session is over",
};

const element = (id) => document.getElementById(id);
const session = { rfb: null, ticket: takeTicket(), attempt: 0, viewOnly: false, typing: 0 };

function takeTicket() {
  const ticket = location.hash.slice(1);
  // Out of the address bar and of the history: it is used up in a moment.
  history.replaceState(null, "", location.pathname);
  return ticket;
}

function showState(state, text) {
  document.body.dataset.state = state;
  element("state").textContent = text;
  const usable = state === "connected" && !session.viewOnly;
  for (const id of ["ctrl-alt-del", "paste", "keyboard"]) {
    element(id).disabled = !usable;
  }
}

function showNotice(title, text, mayRetry) {
  element("notice-title").textContent = title;
  element("notice-text").textContent = text;
  element("retry").hidden = !mayRetry;
  element("notice").hidden = false;
}

function learn(facts) {
  if (facts.resume) {
    session.ticket = facts.resume;
  }
  if (facts.instance) {
    element("instance").textContent = facts.instance;
    document.title = `${facts.instance} – console`;
  }
  if (facts.view_only !== undefined) {
    session.viewOnly = facts.view_only;
    element("view-only").hidden = !facts.view_only;
    if (session.rfb) {
      session.rfb.viewOnly = facts.view_only;
    }
    if (document.body.dataset.state === "connected") {
      showState("connected", "Connected");
    }
  }
}

function connect() {
  const ticket = session.ticket;
  session.ticket = "";
  showState("connecting", session.attempt ? "Connecting again…" : "Connecting…");
  const url = `wss://${location.host}${location.pathname.replace(/[^/]*$/, "")}websocket`;
  const channel = new Channel(new WebSocket(url, ["console", `ticket.${ticket}`]), learn);
  const rfb = new RFB(element("screen"), channel, { shared: true });
  session.rfb = rfb;
  rfb.scaleViewport = true;
  rfb.background = "transparent";
  rfb.viewOnly = session.viewOnly;
  rfb.addEventListener("connect", () => {
    session.attempt = 0;
    element("notice").hidden = true;
    rfb.viewOnly = session.viewOnly;
    showState("connected", "Connected");
    rfb.focus();
  });
  rfb.addEventListener("disconnect", () => {
    session.rfb = null;
    session.typing += 1;
    explainEnd(channel.code, channel.reason);
  });
}

function explainEnd(code, reason) {
  showState("disconnected", "Disconnected");
  const final = code === REFUSED || code === ENDED || code === TIME_IS_UP;
  if (final || !session.ticket) {
    const text = reason || "The proxy can't be reached. Ask for a new link and try again.";
    showNotice(TITLES[code] || "The console is not connected", capitalize(text), false);
    return;
  }
  session.attempt += 1;
  const text = capitalize(reason || "the connection was lost");
  if (session.attempt > ATTEMPTS) {
    showNotice("The console is not connected", text, true);
    return;
  }
  showNotice("Connecting again…", text, false);
  setTimeout(connect, Math.min(FIRST_DELAY * 1.5 ** (session.attempt - 1), LONGEST_DELAY));
}

function capitalize(text) {
  const end = /[.!?]$/.test(text) ? "" : ".";
  return text.charAt(0).toUpperCase() + text.slice(1) + end;
}

// Text as keys, one after the other: what a guest without any agent understands.
async function type(text) {
  session.typing += 1;
  const mine = session.typing;
  for (const character of text.replace(/\r\n/g, "\n")) {
    if (session.typing !== mine || !session.rfb) {
      return;
    }
    const keysym = NAMED_KEYS[character] || keysyms.lookup(character.codePointAt(0));
    session.rfb.sendKey(keysym, null);
    await new Promise((done) => setTimeout(done, KEY_PAUSE));
  }
}

element("ctrl-alt-del").addEventListener("click", () => session.rfb?.sendCtrlAltDel());
element("paste").addEventListener("click", () => {
  element("paste-text").value = "";
  element("paste-dialog").showModal();
});
element("paste-dialog").addEventListener("close", () => {
  const dialog = element("paste-dialog");
  if (dialog.returnValue === "type") {
    type(element("paste-text").value);
  }
  dialog.returnValue = "";
  session.rfb?.focus();
});
element("fullscreen").addEventListener("click", () => {
  if (document.fullscreenElement) {
    document.exitFullscreen();
  } else {
    document.documentElement.requestFullscreen();
  }
});
document.addEventListener("fullscreenchange", () => {
  element("fullscreen").textContent = document.fullscreenElement ? "Leave full screen" : "Full screen";
});
element("keyboard").addEventListener("click", () => element("phone-keys").focus());
element("phone-keys").addEventListener("keydown", (event) => {
  const named = { Enter: KeyTable.XK_Return, Backspace: KeyTable.XK_BackSpace, Tab: KeyTable.XK_Tab };
  if (named[event.key]) {
    session.rfb?.sendKey(named[event.key], event.code);
    event.preventDefault();
  }
});
element("phone-keys").addEventListener("input", (event) => {
  type(event.target.value);
  event.target.value = "";
});
element("retry").addEventListener("click", () => {
  session.attempt = 0;
  element("notice").hidden = true;
  connect();
});

if (session.ticket) {
  connect();
} else {
  showState("disconnected", "Disconnected");
  showNotice("This link doesn't open a console", "A link holds a ticket, and this one has none.", false);
}
