// The page /terminal/support: the operator asks, the tenant decides, both see
// the same. The admin key is kept in this module and nowhere else.

import { Attached } from './attached.js';
import { clock, find, make, notice, plain } from './elements.js';
import { Gateway, socketUrl } from './gateway.js';
import { View } from './view.js';

const { prefix } = document.body.dataset;
const TENANT = /^[a-z0-9][a-z0-9_-]{0,31}$/;
// What a subprotocol's name may hold; with more dots its parts could not be told apart.
const KEY = /^admin:[!#$%&'*+\-^_`|~0-9A-Za-z]+$/;

const form = find('request');
const notices = find('notices');
const endButton = find('end');
let gateway = null;
let asked = null; // {requestId, mode, terminalId}
let attached = null;

find('ask').disabled = false;
form.addEventListener('submit', (event) => {
  event.preventDefault();
  const key = find('key').value.trim();
  const tenant = find('tenant').value.trim();
  if (!TENANT.test(tenant)) return notice(notices, 'That is no id of a tenant.');
  if (!KEY.test(key)) return notice(notices, 'That is no admin key, or one that a browser cannot present.');
  find('key').value = '';
  begin(key, tenant);
});
endButton.addEventListener('click', () => {
  gateway?.call('terminal.support.end', { requestId: asked.requestId }).catch((error) => notice(notices, error.message));
});

function begin(key, tenant) {
  gateway?.stop();
  asked = null;
  form.hidden = true;
  say('Connecting…');
  // A tenant's session of this browser goes along; what a page names itself comes first.
  const at = prefix === '' ? `/t/${tenant}` : prefix;
  gateway = new Gateway(
    socketUrl(at),
    {
      opened: () => opened(),
      lost: () => {
        attached?.lose();
        say('Connection lost. Reconnecting…');
      },
      event,
      refused: (error) => over(error === null ? 'The gateway refused the key.' : error.message),
      isWelcome: () => isWelcome(at, key),
    },
    { protocols: [`openclaw.bearer.${key.replace(':', '.')}`] },
  );
  gateway.start();
}

async function opened() {
  if (asked !== null) {
    attached?.attach();
    return;
  }
  const terminalId = find('terminal').value.trim() || (await newest());
  const params = {
    mode: find('mode').value,
    minutes: Number(find('minutes').value),
    reason: find('reason').value.trim(),
  };
  if (terminalId) params.terminalId = terminalId;
  try {
    const answer = await gateway.call('terminal.support.request', params);
    asked = { ...params, ...answer };
    say('Waiting for the tenant to decide…');
    if (answer.state === 'granted') granted();
  } catch (error) {
    over(error.message);
  }
}

async function newest() {
  const list = await gateway.call('terminal.list').catch(() => ({ sessions: [] }));
  const sorted = [...list.sessions].sort((one, other) => time(other) - time(one));
  return sorted[0]?.terminalId ?? '';
}

function time(session) {
  return new Date(session.lastActivityAt ?? session.createdAt ?? 0).getTime() || 0;
}

function event(name, payload) {
  if (name !== 'terminal.support') {
    attached?.event(name, payload);
    return;
  }
  if (asked === null || payload.requestId !== asked.requestId) return;
  asked = { ...asked, ...payload };
  if (payload.state === 'granted') granted();
  else if (payload.state === 'denied') over('The tenant said no.');
  else if (payload.state === 'ended') over('The access has ended.');
}

async function granted() {
  if (attached !== null) return;
  const terminalId = asked.terminalId || (await newest());
  if (terminalId === '') {
    over('The tenant agreed, but has no terminal open.');
    return;
  }
  const until = typeof asked.expiresAtMs === 'number' ? ` until ${clock(asked.expiresAtMs)}` : '';
  say(`${asked.mode === 'write' ? 'You see what the tenant sees, and may type' : 'You see what the tenant sees'}${until}`);
  endButton.hidden = false;
  const place = make('div', { className: 'screen' });
  find('panels').replaceChildren(make('div', { className: 'panel' }, place));
  const view = new View(place, { typed: (text) => attached?.type(text) });
  attached = new Attached(
    gateway,
    view,
    terminalId,
    { ended: () => notice(notices, 'The terminal has ended.'), failed: (error) => notice(notices, error.message) },
    { mode: asked.mode },
  );
  attached.attach();
}

function over(text) {
  gateway?.stop();
  attached?.lose();
  attached = null;
  asked = null;
  endButton.hidden = true;
  form.hidden = false;
  find('panels').replaceChildren();
  say('');
  notice(notices, plain(text, 300));
}

async function isWelcome(at, key) {
  try {
    const answer = await fetch(`${at}/v1/status`, { headers: { authorization: `Bearer ${key}` }, credentials: 'omit' });
    return answer.status !== 401;
  } catch {
    return true;
  }
}

function say(text) {
  find('connection').textContent = text;
}
