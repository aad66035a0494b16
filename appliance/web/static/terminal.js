// The page /terminal: all terminals of the tenant, as tabs.

import { Attached } from './attached.js';
import { clock, find, make, notice, plain } from './elements.js';
import { Gateway, GatewayLost, socketUrl } from './gateway.js';
import { SupportRequests } from './support_requests.js';
import { Tabs } from './tabs.js';
import { View } from './view.js';

const { prefix } = document.body.dataset;
const REMEMBERED = 'openclawmu.terminal'; // which was shown last, in this tab of the browser
const SCREEN_READER = 'openclawmu.screen-reader';
const KEYS = { Esc: '\x1b', Tab: '\t', 'Ctrl-C': '\x03', 'Ctrl-D': '\x04', '↑': '\x1b[A', '↓': '\x1b[B', '←': '\x1b[D', '→': '\x1b[C' };

const shown = new Map(); // terminal id -> {attached, view, panel, title}
const listed = new Map(); // terminal id -> what the gateway lists of it; those that have not ended
let quota = null;
let isFirstTime = true;

const newButton = find('new-terminal');
const readerBox = find('screen-reader');
const notices = find('notices');
const tabs = new Tabs(find('tabs'), find('panels'), { shown: show, closed: close });
const support = new SupportRequests(find('support'), {
  resolve: (requestId, decision) => ask('terminal.support.resolve', { requestId, decision }),
  end: (requestId) => ask('terminal.support.end', { requestId }),
});
const gateway = new Gateway(socketUrl(prefix), {
  opened,
  lost,
  event,
  refused,
  isWelcome,
});

readerBox.checked = localStorage.getItem(SCREEN_READER) === 'on';
readerBox.addEventListener('change', () => {
  localStorage.setItem(SCREEN_READER, readerBox.checked ? 'on' : 'off');
  for (const { view } of shown.values()) view.screenReader(readerBox.checked);
});
newButton.addEventListener('click', () => spawn());
find('sign-out').addEventListener('click', signOut);
for (const [name, keys] of Object.entries(KEYS)) {
  const button = make('button', { type: 'button' }, name);
  button.addEventListener('click', () => {
    const active = shown.get(tabs.active);
    active?.view.type(keys);
    active?.view.focus();
  });
  find('keys').append(button);
}
gateway.start();

// -- the connection -------------------------------------------------------------

async function opened(hello) {
  say('Connected');
  const methods = new Set(hello.features?.methods ?? []);
  if (!methods.has('terminal.attach')) {
    say('Connected, without terminals');
    notice(notices, 'This session may not use terminals: its token lacks the scope, or this gateway has none.');
    return;
  }
  newButton.disabled = !methods.has('terminal.spawn');
  const list = await ask('terminal.list');
  if (list === null) return;
  reconcile(list);
  for (const { attached } of shown.values()) attached.attach();
  if (methods.has('terminal.support.list')) {
    const requests = await ask('terminal.support.list');
    if (requests !== null) support.replace(requests.requests ?? []);
  }
  if (isFirstTime) {
    isFirstTime = false;
    const first = choose(list.sessions);
    if (first !== null) tabs.show(first);
    else if (!newButton.disabled) await spawn();
  }
}

// Bring the tabs up to what the gateway lists.
function reconcile(list) {
  quota = list.quota ?? null;
  listed.clear();
  for (const each of list.sessions) {
    if (!each.exited) listed.set(each.terminalId, each);
    if (!tabs.has(each.terminalId)) tabs.add(each.terminalId, each.title);
    if (each.exited) tabs.end(each.terminalId);
  }
  for (const [id, { attached }] of shown) {
    const isThere = list.sessions.some((each) => each.terminalId === id);
    if (!isThere && !attached.hasEnded) attached.event('terminal.exit', { reason: 'gone' });
  }
  count();
}

function choose(sessions) {
  const live = sessions.filter((each) => !each.exited);
  const remembered = sessionStorage.getItem(REMEMBERED);
  if (live.some((each) => each.terminalId === remembered)) return remembered;
  const free = live.find((each) => each.attached === 0);
  return (free ?? live[0])?.terminalId ?? null;
}

function lost() {
  say('Connection lost. What you type now is not sent. Reconnecting…');
  newButton.disabled = true;
  for (const { attached } of shown.values()) attached.lose();
}

async function isWelcome() {
  try {
    const answer = await fetch(location.href, { method: 'HEAD', cache: 'no-store' });
    return ![401, 403].includes(answer.status);
  } catch {
    return true; // nobody there to say otherwise
  }
}

function refused(error) {
  if (error === null) location.reload(); // to the page that says why, and how to sign in
  else say(`The gateway refused: ${plain(error.message)}`);
}

function event(name, payload) {
  if (name === 'terminal.support') support.update(payload);
  else if (name.startsWith('terminal.')) {
    if (name === 'terminal.exit') forget(payload.terminalId);
    shown.get(payload.terminalId)?.attached.event(name, payload);
  }
}

function say(text) {
  find('connection').textContent = text;
}

// The answer, or null once the reason there is none was shown.
async function ask(method, params = {}) {
  try {
    return await gateway.call(method, params);
  } catch (error) {
    if (!(error instanceof GatewayLost)) notice(notices, error.message);
    return null;
  }
}

// -- terminals ------------------------------------------------------------------

async function spawn() {
  newButton.disabled = true;
  const made = await ask('terminal.spawn', size());
  newButton.disabled = !gateway.isOpen;
  if (made === null) return;
  listed.set(made.terminalId, made);
  if (!tabs.has(made.terminalId)) tabs.add(made.terminalId, made.title);
  tabs.show(made.terminalId);
  if (made.recording) notice(shown.get(made.terminalId).panel, 'This terminal is recorded.');
  count();
}

// How large the next terminal should be: as the one that is shown.
function size() {
  return shown.get(tabs.active)?.view.wanted() ?? { cols: 80, rows: 24 };
}

function show(id) {
  sessionStorage.setItem(REMEMBERED, id);
  const { attached, view } = shown.get(id) ?? open(id);
  attached.fit();
  view.focus();
}

function open(id) {
  const panel = find(`panel-${id}`);
  const place = make('div', { className: 'screen' });
  panel.append(place);
  const view = new View(
    place,
    {
      typed: (text) => attached.type(text),
      titled: (title) => tabs.name(id, title || listed.get(id)?.title),
      refused: (text) => notice(panel, text),
      leave: () => tabs.focus(),
    },
    { screenReader: readerBox.checked },
  );
  const attached = new Attached(gateway, view, id, {
    attached: (answer, isBack) => {
      if (isBack && answer.truncated) notice(panel, 'Some output is missing: more came than is kept.');
      if (answer.mode === 'read') notice(panel, 'You look on; this terminal takes no input from you.');
    },
    ended: (how) => ended(id, panel, how),
    noticed: (payload) => noticed(panel, payload),
    failed: (error) => notice(panel, error.message),
  });
  const made = { attached, view, panel };
  shown.set(id, made);
  if (gateway.isOpen) attached.attach();
  return made;
}

async function close(id) {
  const found = shown.get(id);
  const hasEnded = found?.attached.hasEnded ?? false;
  try {
    await gateway.call('terminal.close', { terminalId: id }); // one that has ended is forgotten by it
  } catch (error) {
    if (!hasEnded && error.code !== 'NOT_FOUND') {
      notice(notices, error.message);
      return;
    }
  }
  forget(id);
  await found?.attached.detach();
  found?.view.dispose();
  shown.delete(id);
  tabs.remove(id);
}

function forget(id) {
  listed.delete(id);
  count();
}

function ended(id, panel, how) {
  forget(id);
  tabs.end(id);
  notice(panel, `This terminal has ended${explain(how)}.`);
}

const REASONS = {
  closed: ': it was closed',
  detached: ': nobody came back to it in time',
  failed: ': it could not go on',
  gone: ' while this page was away',
  idle: ': nothing happened in it for too long',
  lifetime: ': it had reached its longest life',
  revoked: ': what it was opened with grants nothing any more',
  stopped: ': the gateway was stopped',
  support: ': the support access has ended',
};

function explain({ exitCode, signal, reason }) {
  if (Object.hasOwn(REASONS, reason)) return REASONS[reason];
  if (signal) return `, by signal ${plain(signal, 20)}`;
  return typeof exitCode === 'number' ? ` with exit code ${exitCode}` : '';
}

function noticed(panel, { message, atMs }) {
  const when = typeof atMs === 'number' ? ` (${clock(atMs)})` : '';
  notice(panel, `${plain(message, 300)}${when}`);
}

function count() {
  find('quota').textContent = quota === null ? '' : `${listed.size} of ${quota}`;
}

async function signOut() {
  // Through fetch, which says where it comes from; a form of this page would not.
  const answer = await fetch(`${prefix}/logout`, { method: 'POST' }).catch(() => null);
  if (answer !== null && (answer.ok || answer.status === 401)) {
    gateway.stop();
    sessionStorage.removeItem(REMEMBERED);
    location.reload();
  } else notice(notices, 'Signing out did not work; try again.');
}
