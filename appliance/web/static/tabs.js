// The row of tabs: one for each terminal, in the order they were opened.

import { make, plain } from './elements.js';

export class Tabs {
  #row;
  #panels;
  #hooks;
  #tabs = new Map(); // id -> {tab, label, close, panel}
  #active = null;

  // hooks: shown(id), closed(id)
  constructor(row, panels, hooks) {
    this.#row = row;
    this.#panels = panels;
    this.#hooks = hooks;
    row.addEventListener('keydown', (event) => this.#walk(event));
  }

  get active() {
    return this.#active;
  }

  has(id) {
    return this.#tabs.has(id);
  }

  // Add a tab and return its panel.
  add(id, title) {
    const label = make('button', { type: 'button', role: 'tab', id: `tab-${id}`, 'aria-controls': `panel-${id}` });
    const close = make('button', { type: 'button', title: 'Close: ends what runs in it' }, '×');
    const tab = make('div', { className: 'tab' }, label, close);
    const panel = make('div', { className: 'panel', id: `panel-${id}`, role: 'tabpanel', 'aria-labelledby': `tab-${id}`, hidden: true });
    label.addEventListener('click', () => this.show(id));
    close.addEventListener('click', () => this.#hooks.closed(id));
    this.#row.append(tab);
    this.#panels.append(panel);
    this.#tabs.set(id, { tab, label, close, panel });
    this.name(id, title);
    this.#mark();
    return panel;
  }

  name(id, title) {
    const found = this.#tabs.get(id);
    if (found === undefined) return;
    const shown = plain(title, 60) || 'Terminal';
    found.label.textContent = shown;
    found.label.title = shown;
    found.close.setAttribute('aria-label', `Close ${shown}`);
  }

  end(id) {
    this.#tabs.get(id)?.tab.classList.add('ended');
  }

  show(id) {
    if (!this.#tabs.has(id)) return;
    this.#active = id;
    this.#mark();
    this.#hooks.shown(id);
  }

  remove(id) {
    const found = this.#tabs.get(id);
    if (found === undefined) return;
    const ids = [...this.#tabs.keys()];
    const next = ids[ids.indexOf(id) + 1] ?? ids[ids.indexOf(id) - 1];
    this.#tabs.delete(id);
    found.tab.remove();
    found.panel.remove();
    if (this.#active !== id) return;
    this.#active = null;
    if (next !== undefined) this.show(next);
  }

  focus() {
    this.#tabs.get(this.#active)?.label.focus();
  }

  #mark() {
    for (const [id, { label, panel }] of this.#tabs) {
      const isActive = id === this.#active;
      label.setAttribute('aria-selected', String(isActive));
      label.tabIndex = isActive || this.#active === null ? 0 : -1;
      panel.hidden = !isActive;
    }
  }

  #walk(event) {
    const ids = [...this.#tabs.keys()];
    const at = ids.findIndex((id) => this.#tabs.get(id).label === event.target);
    if (at < 0) return;
    const to = { ArrowLeft: at - 1, ArrowRight: at + 1, Home: 0, End: ids.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    const id = ids[(to + ids.length) % ids.length];
    this.#tabs.get(id).label.focus();
  }
}
