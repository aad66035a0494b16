// The page /terminal/replay/<recording>.

import { find, make, notice, plain } from './elements.js';
import { Player } from './player.js';
import { Recording } from './recording.js';
import { View } from './view.js';

const { prefix, tenant, recording: id } = document.body.dataset;
const STEP = 5; // seconds that an arrow key goes

const play = find('play');
const position = find('position');
let player = null;

load();

async function load() {
  try {
    const address = `${prefix}/v1/tenants/${encodeURIComponent(tenant)}/terminals/recordings/${encodeURIComponent(id)}`;
    const answer = await fetch(address, { headers: { accept: 'application/x-asciicast' } });
    if (answer.status === 401) {
      location.reload();
      return;
    }
    if (!answer.ok) throw new Error((await answer.json().catch(() => ({}))).detail ?? `The gateway answered ${answer.status}.`);
    begin(await Recording.read(answer.body));
  } catch (error) {
    find('state').textContent = 'Not loaded';
    notice(find('notices'), error.message);
  }
}

function begin(recording) {
  const place = make('div', { className: 'screen' });
  find('screen').append(place);
  const view = new View(place);
  view.readOnly(true);
  view.answer(false);
  player = new Player(recording, view, show);
  about(recording);
  if (recording.isCut) notice(find('notices'), 'This recording is too long, or was cut off: its end is missing.');
  mark();
  play.disabled = position.disabled = false;
  play.addEventListener('click', toggle);
  position.addEventListener('input', () => player.seek(Number(position.value)));
  find('speed').addEventListener('change', (event) => {
    player.speed = Number(event.target.value);
  });
  find('skip-idle').addEventListener('change', (event) => {
    player.shortenPauses(event.target.checked);
    mark();
  });
  document.addEventListener('keydown', steer);
  show();
  player.play();
}

function about({ header }) {
  const when = typeof header.timestamp === 'number' ? new Date(header.timestamp * 1000).toLocaleString() : '';
  find('about').textContent = [plain(header.title, 80), when].filter(Boolean).join(', ');
}

function mark() {
  const buttons = player.markers.slice(0, 100).map(({ at, text }) => {
    const button = make('button', { type: 'button' }, `${spoken(at)} ${plain(text, 40)}`);
    button.addEventListener('click', () => player.seek(at));
    return button;
  });
  find('markers').replaceChildren(...buttons);
}

function toggle() {
  if (player.isPlaying) player.pause();
  else player.play();
}

function steer(event) {
  if (event.target.closest('input:not(#position), select, button') || event.ctrlKey || event.altKey || event.metaKey) return;
  const acts = {
    ' ': toggle,
    ArrowLeft: () => player.seek(player.position - STEP),
    ArrowRight: () => player.seek(player.position + STEP),
  };
  const act = acts[event.key];
  if (act === undefined) return;
  event.preventDefault();
  act();
}

function show() {
  if (player === null) return;
  play.textContent = player.isPlaying ? 'Pause' : 'Play';
  position.max = String(player.duration);
  position.value = String(player.position);
  position.setAttribute('aria-valuetext', spoken(player.position));
  find('time').textContent = `${spoken(player.position)} / ${spoken(player.duration)}`;
  const isOver = !player.isPlaying && player.position >= player.duration;
  find('state').textContent = player.isPlaying ? 'Playing' : isOver ? 'Finished' : 'Paused';
}

function spoken(seconds) {
  const whole = Math.floor(seconds);
  return `${Math.floor(whole / 60)}:${String(whole % 60).padStart(2, '0')}`;
}
