'use strict';
(() => {
  const root = document.documentElement;
  const make = (tag, text) => Object.assign(document.createElement(tag), { textContent: text });

  // ---- light and dark; a page from a file may be refused a place to remember it in
  const remembered = (value) => {
    try {
      if (value) localStorage.setItem('mim_mm-theme', value);
      return localStorage.getItem('mim_mm-theme');
    } catch { return null; }
  };
  const system = matchMedia('(prefers-color-scheme: dark)').matches ? 'dark' : 'light';
  const toggle = document.getElementById('theme');
  const show = (theme) => {
    root.dataset.theme = theme;
    toggle.textContent = theme === 'dark' ? 'Light' : 'Dark';
    toggle.setAttribute('aria-label', `switch to ${theme === 'dark' ? 'light' : 'dark'} colours`);
  };
  show(remembered() === 'dark' || remembered() === 'light' ? remembered() : system);
  toggle.hidden = false;
  toggle.onclick = () => { show(root.dataset.theme === 'dark' ? 'light' : 'dark'); remembered(root.dataset.theme); };

  // ---- the part of the page that is being read
  const links = new Map([...document.querySelectorAll('.bar nav a[href^="#"]')]
    .map((link) => [document.getElementById(link.hash.slice(1)), link]));
  const mark = () => {
    let here = null;
    for (const [heading, link] of links) {
      link.classList.remove('here');
      if (heading && heading.getBoundingClientRect().top < 120) here = link;
    }
    if (here) here.classList.add('here');
  };
  addEventListener('scroll', mark, { passive: true });
  mark();

  // ---- sorting: by number where every cell of a column has one, empty cells last
  const said = (cell) => cell.querySelector('.v')?.textContent.trim() ?? cell.textContent.trim();
  const empty = (text) => text === '' || text === '–';
  const number = (cell) => {
    if (cell.dataset.key !== undefined) return Number(cell.dataset.key);
    const found = said(cell).replace(/−/g, '-').match(/^[+-]?\d[\d,]*(\.\d+)?(e[+-]?\d+)?(?![\w:-])/);
    return found ? Number(found[0].replace(/,/g, '')) : NaN;
  };
  const sort = (table, column, head) => {
    const up = head.getAttribute('aria-sort') !== 'ascending';
    for (const other of table.tHead.rows[0].cells) other.removeAttribute('aria-sort');
    head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
    const rows = [...table.tBodies[0].rows];
    const filled = rows.filter((row) => !empty(said(row.cells[column])));
    const numeric = filled.every((row) => !Number.isNaN(number(row.cells[column])));
    const order = (a, b) => (numeric ? number(a) - number(b)
      : said(a).localeCompare(said(b), 'en', { numeric: true }));
    filled.sort((a, b) => (up ? 1 : -1) * order(a.cells[column], b.cells[column]));
    table.tBodies[0].append(...filled, ...rows.filter((row) => !filled.includes(row)));
  };

  // ---- copying
  const whole = (cell, brief) => {
    const value = cell.querySelector('.v')?.textContent.trim() ?? '';
    const folded = [...cell.querySelectorAll('li')].map((item) => item.textContent.trim()).join('; ');
    if (brief) return value || folded;
    const note = cell.querySelector('.note')?.textContent.trim();
    const text = [value, folded].filter(Boolean).join('; ');
    return note ? `${text} (${note})` : text;
  };
  const rowsOf = (table, brief) => {
    const shown = [...table.tBodies[0].rows].filter((row) => !row.hidden);
    const head = [...table.tHead.rows[0].cells];
    const used = head.map((_, i) => i).filter((i) => !head[i].classList.contains('aside')
      && !shown.some((row) => row.cells[i].querySelector('.files, input')));
    return [used.map((i) => head[i].textContent.trim()),
      ...shown.map((row) => used.map((i) => whole(row.cells[i], brief)))];
  };
  const tex = (text) => {
    const plain = { '\\': '\\textbackslash{}', '~': '\\textasciitilde{}', '^': '\\textasciicircum{}' };
    const signs = { '±': '$\\pm$', '−': '$-$', '–': '--', '×': '$\\times$', '<': '$<$', '>': '$>$' };
    return text.replace(/[\\~^&%$#_{}±−–×<>]/g, (sign) => plain[sign] ?? signs[sign] ?? `\\${sign}`);
  };
  const forms = {
    CSV: (table) => rowsOf(table).map((row) => row
      .map((text) => (/[",\n\r]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text)).join(',')).join('\n'),
    LaTeX: (table) => {
      const [head, ...rows] = rowsOf(table, true);
      const line = (row) => `${row.map(tex).join(' & ')} \\\\`;
      const rest = table.classList.contains('numeric') ? 'r' : 'l';
      return ['% needs \\usepackage{booktabs}', `\\begin{tabular}{l${rest.repeat(head.length - 1)}}`, '\\toprule',
        line(head), '\\midrule', ...rows.map(line), '\\bottomrule', '\\end{tabular}'].join('\n');
    },
    Markdown: (table) => {
      const [head, ...rows] = rowsOf(table);
      const line = (row) => `| ${row.map((text) => text.replace(/\|/g, '\\|')).join(' | ')} |`;
      const rest = table.classList.contains('numeric') ? '---:' : '---';
      return [line(head), line(head.map((_, i) => (i ? rest : '---'))), ...rows.map(line)].join('\n');
    },
  };
  const box = document.getElementById('said');
  const copy = async (text, name) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch { // refused, e.g. for a page that is not from a safe place
      const area = make('textarea', text);
      document.body.append(area);
      area.select();
      document.execCommand('copy');
      area.remove();
    }
    box.textContent = `${name} copied`;
    setTimeout(() => { box.textContent = ''; }, 1500);
  };

  for (const table of document.querySelectorAll('table')) {
    [...table.tHead.rows[0].cells].forEach((head, column) => {
      const files = table.tBodies[0].querySelector(`td:nth-child(${column + 1}) .files`);
      if (files || head.classList.contains('aside') || table.tBodies[0].rows.length < 2) return;
      const button = Object.assign(make('button', head.textContent), { type: 'button' });
      button.onclick = () => sort(table, column, head);
      head.replaceChildren(button);
    });
    const bar = Object.assign(make('div', 'copy'), { className: 'copy' });
    for (const [name, form] of Object.entries(forms)) {
      const button = Object.assign(make('button', name), { type: 'button' });
      button.onclick = () => copy(form(table), name);
      bar.append(button);
    }
    table.closest('.table').append(bar);
  }

  // ---- the index: filters, and ticked rows beside each other
  const filters = document.querySelector('.filters');
  if (filters) {
    const rows = [...document.querySelectorAll('.filtered tbody tr')];
    document.querySelector('.filtered thead tr').append(Object.assign(make('th', 'compare'), { className: 'aside' }));
    const ticks = new Map(rows.map((row) => {
      const tick = Object.assign(document.createElement('input'), { type: 'checkbox' });
      tick.setAttribute('aria-label', `compare ${said(row.cells[0])} ${said(row.cells[1])}`);
      const cell = document.createElement('td');
      cell.append(tick);
      row.append(cell);
      return [row, tick];
    }));
    const only = document.getElementById('ticked');
    const holds = (text, words) => words.toLowerCase().split('|').some((word) => text.includes(word.trim()));
    const apply = () => {
      const wanted = [...filters.querySelectorAll('[data-column]')].filter((field) => field.value);
      for (const row of rows) {
        row.hidden = (only.checked && !ticks.get(row).checked) || !wanted.every((field) => {
          const column = Number(field.dataset.column);
          const text = (column < 0 ? row.textContent : said(row.cells[column])).toLowerCase();
          return field.tagName === 'SELECT' ? text === field.value.toLowerCase() : holds(text, field.value);
        });
      }
    };
    filters.addEventListener('input', apply);
    apply();
  }
})();
