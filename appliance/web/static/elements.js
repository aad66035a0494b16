// Making elements. Text becomes text here and nothing else: there is no way in
// this module to pass markup, and none of the pages has another.

export function find(id) {
  const found = document.getElementById(id);
  if (found === null) throw new Error(`the page has no #${id}`);
  return found;
}

// make('button', { className: 'x', onclick: f, 'aria-label': 'y' }, 'text', child)
export function make(tag, properties = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(properties)) {
    if (name.includes('-') || name === 'role') made.setAttribute(name, value);
    else made[name] = value;
  }
  made.append(...children);
  return made;
}

// What a program calls itself, or an error's text: one line, no characters
// that are not seen or that turn the direction of what stands beside them.
const UNSEEN = /[\u0000-\u001f\u007f-\u009f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff]+/g;

export function plain(text, longest = 200) {
  const line = String(text ?? '').slice(0, longest * 4).toWellFormed().replace(UNSEEN, ' ').trim();
  const shown = [...line];
  return shown.length > longest ? `${shown.slice(0, longest - 1).join('')}…` : line;
}

const MOST_NOTICES = 4;

// Show a line for people until they close it; the oldest gives way.
export function notice(place, text, ...buttons) {
  const close = make('button', { type: 'button', 'aria-label': 'Close this notice' }, '×');
  const shown = make('div', { className: 'notice' }, make('span', {}, plain(text, 500)), ...buttons, close);
  close.addEventListener('click', () => shown.remove());
  while (place.querySelectorAll(':scope > .notice').length >= MOST_NOTICES) {
    place.querySelector(':scope > .notice').remove();
  }
  place.append(shown);
  return shown;
}

export function clock(ms) {
  return new Date(ms).toLocaleTimeString([], { hour: '2-digit', minute: '2-digit' });
}
