"""The style sheet of a run's page."""

STYLE = """
:root{color-scheme:light dark;--page:#fff;--panel:#f5f6f8;--ink:#1c2127;--soft:#59626d;--rule:#dde1e6;
--blue:#0072b2;--orange:#d55e00;--green:#00785a;--grey:#59626d;--note:#fdf3e7;--note-rule:#d55e00}
@media screen and (prefers-color-scheme:dark){:root{--page:#15181c;--panel:#1d2126;--ink:#e6e8eb;--soft:#a7b0ba;
--rule:#343b43;--blue:#56b4e9;--orange:#f0912f;--green:#4ccaa3;--grey:#a7b0ba;--note:#2b231a;--note-rule:#f0912f}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--page);color:var(--ink);
font:1rem/1.55 system-ui,-apple-system,"Segoe UI",Roboto,"Helvetica Neue",Arial,sans-serif}
main{max-width:62rem;margin:0 auto;padding:2.5rem 1.25rem 4rem}
h1{font-size:1.65rem;line-height:1.25;font-weight:650;margin:0;overflow-wrap:anywhere}
h2{font-size:1.15rem;font-weight:650;margin:3rem 0 .75rem}
h3{font-size:.95rem;font-weight:600;margin:0 0 .4rem}
p{margin:.5rem 0;max-width:44rem}
.soft,figcaption{color:var(--soft)}
.small{font-size:.875rem}
code{font:.92em ui-monospace,SFMono-Regular,Menlo,Consolas,monospace;overflow-wrap:anywhere}
.headline{display:flex;flex-wrap:wrap;align-items:baseline;gap:.25rem 1.1rem;margin:1.4rem 0 .3rem}
.headline strong{font-size:3.1rem;line-height:1.1;font-weight:650;letter-spacing:-.02em;white-space:nowrap}
.note{background:var(--note);border-left:3px solid var(--note-rule);border-radius:0 4px 4px 0;padding:.55rem .9rem;
max-width:none}
.key{display:grid;grid-template-columns:repeat(auto-fill,minmax(7.6rem,1fr));gap:1px;padding:1px;margin:0}
.key div{box-shadow:0 0 0 1px var(--rule);padding:.7rem .9rem}
.key dt{color:var(--soft);font-size:.82rem}
.key dd{margin:0;font-size:1.2rem;font-weight:600;font-variant-numeric:tabular-nums}
.key small{display:block;font-size:.78rem;font-weight:400;color:var(--soft)}
.panels{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,18.5rem),1fr));gap:1.75rem 1.5rem}
figure{margin:0;min-width:0}
figcaption{font-size:.85rem;margin-top:.2rem}
svg{display:block;width:100%;height:auto}
svg text{fill:var(--soft);font:13.5px system-ui,-apple-system,"Segoe UI",Roboto,sans-serif;
font-variant-numeric:tabular-nums}
svg .rule{stroke:var(--rule);stroke-width:1}
svg .line{fill:none;stroke-width:2;stroke-linejoin:round;stroke-linecap:round}
svg .line.blue,svg .line.thin.blue{stroke:var(--blue)}svg .line.orange{stroke:var(--orange);stroke-dasharray:6 4}
svg .line.green{stroke:var(--green)}svg .line.grey{stroke:var(--grey)}
svg .line.thin{stroke-width:1.2}svg .line.dashed{stroke-width:1.3;stroke-dasharray:3 4}
svg .dot.blue{fill:var(--blue)}svg .dot.orange{fill:var(--orange)}svg .dot.grey{fill:var(--grey)}
svg .mark{fill:var(--green)}
.legend span{display:inline-block;margin-right:1.1rem;white-space:nowrap}
.legend i{display:inline-block;width:1.6rem;margin-right:.4rem;vertical-align:.25em;border-top:2px solid var(--blue)}
.legend i.orange{border-top:2px dashed var(--orange)}.legend i.grey{border-top-color:var(--grey)}
.scroll{overflow-x:auto;max-width:100%}
.scroll.tall{max-height:34rem;overflow-y:auto;border:1px solid var(--rule);border-radius:8px;padding:0 .6rem}
.scroll:focus-visible{outline:2px solid var(--blue);outline-offset:3px}
table{border-collapse:collapse;font-size:.875rem;font-variant-numeric:tabular-nums}
th,td{text-align:left;padding:.28rem .9rem .28rem 0;border-bottom:1px solid var(--rule);vertical-align:top}
thead th{color:var(--soft);font-weight:500;vertical-align:bottom}
tbody th{font-weight:500;overflow-wrap:anywhere;min-width:5.5rem}
td{overflow-wrap:anywhere}
.tall thead th{position:sticky;top:0;background:var(--page)}
th.number,td.number{text-align:right;white-space:nowrap;overflow-wrap:normal}
th:last-child,td:last-child{padding-right:.2rem}
tfoot th,tfoot td{font-weight:650;border-bottom:0}
.wide{width:100%}
.changed th,.changed td{background:var(--note)}
.changed th{box-shadow:inset 3px 0 var(--note-rule)}
.settings th:first-child{padding-left:.6rem}
.settings td{overflow-wrap:anywhere}
.matrix{border-collapse:separate;border-spacing:2px}
.matrix th,.matrix td{border:0;padding:.2rem .35rem}
.matrix td{min-width:2.1rem;height:2.1rem;text-align:center;vertical-align:middle;border-radius:3px;
background:var(--panel);white-space:nowrap}
.matrix tbody th{text-align:right;vertical-align:middle;white-space:nowrap;min-width:0;font-weight:500;position:sticky;
left:0;background:var(--page)}
.matrix thead th{text-align:center;color:var(--ink)}
.matrix thead th.side{color:var(--soft);text-align:right;font-size:.8rem;font-weight:400;vertical-align:bottom}
.matrix .turned span{writing-mode:vertical-rl;transform:rotate(180deg);max-height:9rem;overflow:hidden;
white-space:nowrap}
.matrix td.right{background:rgb(0 114 178/var(--a))}.matrix td.wrong{background:rgb(213 94 0/var(--a))}
.heat{display:block;width:100%;max-width:34rem;aspect-ratio:1;image-rendering:pixelated;background:var(--panel);
border:1px solid var(--rule)}
.pairs{display:grid;grid-template-columns:repeat(auto-fill,minmax(min(100%,17.5rem),1fr));gap:1rem;padding:0;margin:0;
list-style:none}
.pairs li{border:1px solid var(--rule);border-radius:8px;padding:.7rem .85rem}
.pairs p{margin:0 0 .5rem;overflow-wrap:anywhere}
.pairs p:last-child{margin:0}
.thumbnails{display:grid;grid-template-columns:repeat(4,1fr);gap:.4rem}
.thumbnails img{width:100%;aspect-ratio:1;object-fit:contain;background:var(--panel);border-radius:4px}
.thumbnails img.tiny{image-rendering:pixelated}
.events{padding:0;margin:0;list-style:none}
.events li{padding:.25rem 0;border-bottom:1px solid var(--rule)}
.events b{font-weight:600;display:inline-block;min-width:11rem;margin-right:.6rem}
.cautions{padding-left:1.1rem;max-width:46rem}.cautions li{margin:.35rem 0}
footer{margin-top:3rem;border-top:1px solid var(--rule);padding-top:.8rem}
@media (max-width:30rem){main{padding:1.5rem 1rem 3rem}th,td{padding-right:.6rem}.events b{display:block}}
@media print{main{max-width:none;padding:0}body{font-size:10pt}h2{margin-top:1.6rem}h2,h3{break-after:avoid}
.key dd{font-size:1rem}
figure,.pairs li,.key,tr,.headline{break-inside:avoid}.scroll,.scroll.tall{overflow:visible;max-height:none;border:0;
padding:0}*{print-color-adjust:exact;-webkit-print-color-adjust:exact}.panels{grid-template-columns:1fr 1fr}}
"""
