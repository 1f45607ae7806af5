// Headings become buttons only where this runs, so that a page without it promises nothing.
for (const table of document.querySelectorAll('table.sorts')) {
  const heads = [...table.tHead.rows[0].cells], body = table.tBodies[0];
  heads.forEach((head, column) => {
    const button = document.createElement('button');
    button.type = 'button';
    button.append(...head.childNodes);
    head.append(button);
    button.addEventListener('click', () => {
      const up = head.getAttribute('aria-sort') !== 'ascending';
      heads.forEach((other) => other.removeAttribute('aria-sort'));
      head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
      body.append(...[...body.rows].sort((a, b) => {
        const [p, q] = [a, b].map((row) => row.cells[column].getAttribute('data-value'));
        if (p === null || q === null) return (p === null) - (q === null);
        return (head.className === 'left' ? p.localeCompare(q) : p - q) * (up ? 1 : -1);
      }));
    });
  });
}
