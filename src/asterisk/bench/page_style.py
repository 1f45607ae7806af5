"""The style and the script of the HTML report; both are named by hash in its security policy."""

from __future__ import annotations

from asterisk.bench import svg

STYLE = (
    """
:root{color-scheme:light dark;--bg:#ffffff;--card:#f6f8fa;--ink:#1b1f24;--mute:#57606a;
--line:#d8dde3;--bad:#b3261e;--warn:#8a5a00;--hover:#eef2f6}
@media (prefers-color-scheme:dark){:root{--bg:#15191f;--card:#1c2129;--ink:#e6e9ee;--mute:#a3adb8;
--line:#343c46;--bad:#ff8a80;--warn:#f2c14e;--hover:#222932}}
*{box-sizing:border-box}
body{margin:0;background:var(--bg);color:var(--ink);
font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'DejaVu Sans',sans-serif}
main{max-width:1240px;margin:0 auto;padding:20px 24px 48px}
h1{font-size:1.6rem;line-height:1.25;margin:0 0 4px;overflow-wrap:anywhere}
h2{font-size:1.15rem;margin:36px 0 4px}
p{margin:4px 0 10px;max-width:80ch}
.lead,.note,figcaption,footer{color:var(--mute)}
.note,figcaption,footer{font-size:.88rem}
li,dd,p,figcaption{overflow-wrap:anywhere}
.facts{display:grid;grid-template-columns:repeat(auto-fill,minmax(150px,1fr));gap:10px 20px;
margin:16px 0;padding:14px 16px;background:var(--card);border:1px solid var(--line);
border-radius:8px}
.facts div{min-width:0}
dt{font-size:.8rem;color:var(--mute)}
dd{margin:0}
.told{border-left:4px solid var(--warn);padding:8px 16px;margin:14px 0;background:var(--card)}
.told.failed{border-color:var(--bad)}
.told h2{margin:0;font-size:1rem}
.told ul{margin:4px 0;padding-left:20px}
.scroll{overflow-x:auto;border:1px solid var(--line);border-radius:8px}
.scroll:focus-visible,button:focus-visible,summary:focus-visible{outline:2px solid #2f8fce;
outline-offset:2px}
table{border-collapse:collapse;width:100%;font-size:.88rem;font-variant-numeric:tabular-nums}
th,td{padding:6px 12px;text-align:right;white-space:nowrap;border-bottom:1px solid var(--line)}
tr:last-child>*{border-bottom:0}
thead th{vertical-align:bottom;color:var(--mute);font-weight:600;background:var(--card)}
tbody tr:hover>*{background:var(--hover)}
tbody th{font-weight:600}
.left{text-align:left}
tr>:first-child{position:sticky;left:0;background:var(--bg)}
thead tr>:first-child{background:var(--card)}
s{color:var(--mute);text-decoration-color:var(--bad);text-decoration-thickness:2px}
.none{color:var(--mute)}
.failure{color:var(--bad)}
button{font:inherit;color:inherit;background:none;border:0;padding:0;cursor:pointer}
th[aria-sort=ascending] button::after{content:' \\2191'}
th[aria-sort=descending] button::after{content:' \\2193'}
.charts{columns:2 440px;column-gap:20px;margin-top:14px}
figure{margin:0 0 20px;break-inside:avoid;border:1px solid var(--line);border-radius:8px;
overflow:hidden}
figure svg{display:block;width:100%;height:auto}
figcaption{padding:8px 14px 12px;border-top:1px solid var(--line)}
.legend{display:grid;grid-template-columns:repeat(auto-fill,minmax(280px,1fr));gap:8px 24px;
margin:10px 0}
.legend dt{font-size:.88rem;color:var(--ink);font-weight:600}
.legend dd{font-size:.88rem;color:var(--mute)}
summary{cursor:pointer;margin-top:12px}
code{font-size:.9em;overflow-wrap:anywhere}
@media (max-width:560px){main{padding:14px 12px 36px}th,td{padding:5px 9px}
tbody tr>:first-child,thead tr>:first-child{min-width:8.5em;max-width:38vw;
white-space:normal}
td.left{white-space:normal;overflow-wrap:anywhere;min-width:4.5em;max-width:7em}}
@media print{figure{break-inside:avoid}.scroll{overflow:visible}}
"""
    + svg.STYLE
    + "\n"
)

# Headings become buttons only where the script runs, so that a page without it promises nothing.
SCRIPT = """
document.querySelectorAll('table.sorts').forEach(function (table) {
  var heads = table.tHead.rows[0].cells, body = table.tBodies[0];
  Array.prototype.forEach.call(heads, function (head, column) {
    var button = document.createElement('button');
    button.type = 'button';
    while (head.firstChild) button.appendChild(head.firstChild);
    head.appendChild(button);
    button.addEventListener('click', function () {
      var up = head.getAttribute('aria-sort') !== 'ascending';
      Array.prototype.forEach.call(heads, function (h) { h.removeAttribute('aria-sort'); });
      head.setAttribute('aria-sort', up ? 'ascending' : 'descending');
      var rows = Array.prototype.slice.call(body.rows);
      rows.sort(function (a, b) {
        var x = a.cells[column], y = b.cells[column];
        var p = x.getAttribute('data-value'), q = y.getAttribute('data-value');
        if (p === null || q === null) return (p === null) - (q === null);
        var order = head.className === 'left' ? p.localeCompare(q) : p - q;
        return up ? order : -order;
      });
      rows.forEach(function (row) { body.appendChild(row); });
    });
  });
});
"""
