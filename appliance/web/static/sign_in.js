// The page that asks for a token: it exchanges it for a ticket, and the ticket
// for a session. The token goes out once, in a header, and never into an address.

import { find, notice } from './elements.js';

const { prefix } = document.body.dataset;
const TOKEN = /^tenant:([a-z0-9][a-z0-9_-]{0,31}):[\x21-\x7e]+$/;
const token = find('token');
const enter = find('enter');

enter.disabled = false;
find('sign-in').addEventListener('submit', async (event) => {
  event.preventDefault();
  const text = token.value.trim();
  token.value = '';
  enter.disabled = true;
  try {
    location.replace(await ticket(text));
  } catch (error) {
    find('notices').replaceChildren();
    notice(find('notices'), error.message);
    enter.disabled = false;
    token.focus();
  }
});

async function ticket(text) {
  if (text.startsWith('admin:')) {
    throw new Error(`That is an admin key. To see a tenant’s terminal with it, open ${prefix}/terminal/support.`);
  }
  const tenant = TOKEN.exec(text)?.[1];
  if (tenant === undefined) throw new Error('That is no token of a tenant: they look like tenant:acme:…');
  const answer = await fetch(`${prefix}/v1/tenants/${tenant}/tickets`, {
    method: 'POST',
    credentials: 'omit',
    headers: { authorization: `Bearer ${text}`, 'content-type': 'application/json' },
    body: JSON.stringify({ ttl: '1m', next: location.pathname }),
  });
  const said = await answer.json().catch(() => ({}));
  if (!answer.ok) throw new Error(said.detail ?? `The gateway answered ${answer.status}.`);
  return prefix + said.url;
}
