"""The report's style sheet: one column, quiet colours, tabular numerals, readable on a laptop and on paper."""

CSS = """
:root { --ink: #1b2430; --muted: #667080; --rule: #dfe3e8; --accent: #0c7489; --panel: #0b0e13; --warn: #9a5b00; }
* { box-sizing: border-box; }
html { background: #f4f5f7; }
body { margin: 0; color: var(--ink); font: 15px/1.55 system-ui, "Segoe UI", "Helvetica Neue", Helvetica, Arial, sans-serif;
  font-variant-numeric: tabular-nums; -webkit-print-color-adjust: exact; print-color-adjust: exact; }
main { max-width: 1180px; margin: 0 auto; padding: 40px 48px 48px; background: #fff; }
svg { display: block; width: 100%; height: auto; font-family: inherit; font-variant-numeric: tabular-nums; }
h1 { margin: 0; font-size: 30px; line-height: 1.2; font-weight: 650; letter-spacing: -0.015em; overflow-wrap: anywhere; }
h2 { margin: 0 0 4px; font-size: 19px; font-weight: 650; letter-spacing: -0.005em; }
h3 { margin: 0; font-size: 15px; font-weight: 650; }
p { margin: 0 0 10px; max-width: 92ch; }
section { margin-top: 40px; padding-top: 18px; border-top: 1px solid var(--rule); }
.lead, .small { color: var(--muted); }
.lead { margin: 6px 0 0; overflow-wrap: anywhere; }
.small { font-size: 13px; line-height: 1.5; }
.nowrap, .unit { white-space: nowrap; }
.paste { margin-top: 8px; padding: 12px 16px; max-width: none; border: 1px solid var(--rule); border-radius: 6px; background: #fafbfc; }
.kicker { margin: 0 0 6px; font-size: 12px; font-weight: 600; letter-spacing: 0.08em; text-transform: uppercase; color: var(--accent); }
.cards { display: grid; grid-template-columns: repeat(auto-fit, minmax(190px, 1fr)); gap: 0; margin-top: 28px;
  border: 1px solid var(--rule); border-radius: 8px; overflow: hidden; }
.counts { grid-template-columns: repeat(auto-fit, minmax(140px, 1fr)); }
.card { padding: 16px 20px 14px; box-shadow: 1px 0 0 var(--rule), 0 1px 0 var(--rule); }
.card .name { font-size: 13px; color: var(--muted); }
.card .value { margin: 2px 0; font-size: 30px; line-height: 1.2; font-weight: 600; letter-spacing: -0.02em; white-space: nowrap; }
.card .unit { font-size: 14px; font-weight: 400; letter-spacing: 0; color: var(--muted); }
.card .more { font-size: 13px; color: var(--muted); }
.notes { margin-top: 24px; padding: 14px 20px 6px; border-left: 3px solid #d99a2b; background: #fdf8ee; border-radius: 0 6px 6px 0; }
.notes p { margin-bottom: 8px; max-width: none; }
.notes h2 { font-size: 15px; margin-bottom: 6px; }
.pair { display: grid; grid-template-columns: 1fr 1fr; gap: 32px 24px; margin-top: 18px; }
.pair + .pair { margin-top: 32px; }
.pair > * { min-width: 0; }
figure { margin: 0; break-inside: avoid; }
.pair > figure { display: flex; flex-direction: column; }
.pair > figure > :last-child { margin-top: auto; }
figcaption { margin-bottom: 8px; }
figcaption p, .pick p { margin: 0; }
h3 span { margin-left: 4px; font-weight: 400; font-size: 13px; color: var(--muted); }
.dark { padding: 12px; background: var(--panel); border-radius: 6px; }
.picks { display: grid; grid-template-columns: 1fr 1fr; gap: 28px 32px; margin-top: 18px; }
.pick { min-width: 0; break-inside: avoid; }
.pick .both { display: grid; grid-template-columns: 112px 1fr; gap: 14px; align-items: start; margin-top: 8px; }
.pick .dark { padding: 4px; }
.pick .numbers { margin-top: 4px; color: var(--ink); }
.key { display: inline-flex; gap: 6px; align-items: center; margin-right: 20px; }
.key svg { width: 26px; height: 12px; flex: none; }
.swatch { display: inline-block; width: 11px; height: 11px; margin-right: 8px; border-radius: 2px; vertical-align: -1px; }
table { width: 100%; margin-top: 12px; border-collapse: collapse; font-size: 14px; break-inside: avoid; }
th, td { padding: 6px 14px 6px 0; border-bottom: 1px solid var(--rule); text-align: left; vertical-align: baseline; }
td { overflow-wrap: anywhere; }
th { font-size: 12.5px; font-weight: 600; color: var(--muted); border-bottom-color: #b9c0c9; vertical-align: bottom; }
th[scope=row] { font-size: 14px; font-weight: 400; color: inherit; border-bottom-color: var(--rule); vertical-align: baseline; }
.num { text-align: right; }
td.num { white-space: nowrap; }
table + p { margin-top: 12px; }
table.compact { width: auto; }
table.compact td { padding-left: 22px; }
td.num:last-child, th.num:last-child { padding-right: 0; }
.faint td, .faint th { color: var(--muted); }
a { color: var(--accent); text-decoration-thickness: 1px; text-underline-offset: 2px; }
footer { margin-top: 44px; padding-top: 16px; border-top: 1px solid var(--rule); font-size: 13px; color: var(--muted); }
@media screen and (max-width: 1040px) { .cards:not(.counts) { grid-template-columns: 1fr 1fr; } }
@media screen and (max-width: 480px) { .cards:not(.counts) { grid-template-columns: 1fr; } }
@media screen and (max-width: 860px) { main { padding: 24px 18px; } .pair, .picks { grid-template-columns: 1fr; } }
@page { size: A4; margin: 13mm; }
@media print {
  html { background: #fff; } body { font-size: 10.5px; line-height: 1.45; } main { max-width: none; padding: 0; }
  h1 { font-size: 21px; } h2 { font-size: 14px; } h3, table { font-size: 10.5px; }
  th, .small, h3 span, footer, .card .name, .card .more { font-size: 9.5px; }
  th[scope=row] { font-size: 10.5px; } .card { padding: 8px 10px; } .card .value { font-size: 19px; } .card .unit { font-size: 10px; }
  .cards { grid-template-columns: repeat(auto-fit, minmax(30mm, 1fr)); margin-top: 14px; } section { margin-top: 18px; padding-top: 10px; }
  .pair { gap: 14px; margin-top: 10px; } .picks { gap: 14px; } .pick .both { grid-template-columns: 72px 1fr; }
  h2, h3, section > .small { break-after: avoid; } a { color: inherit; text-decoration: none; }
}
"""
