"""The style sheet of a study's page, beside that of a run's."""

from trifold.report.study_points import CIVIDIS

LIGHT = ("#133f95", "#e8700a", "#00a462", "#c060a0", "#704f00", "#6473ff", "#38254e", "#781029")
DARK = ("#6e93f6", "#f58a3c", "#2dd29c", "#ca79ae", "#fcdc36", "#addaff", "#eff6ef", "#ff5765")
"""The colours of series on a light and on a dark page, told apart by colour-blind readers too."""


def _variables(colours: tuple[str, ...]) -> str:
    return ";".join(f"--s{i}:{colour}" for i, colour in enumerate(colours))


STUDY_STYLE = f"""
:root{{{_variables(LIGHT)};--best:#e6f1fa}}
@media screen and (prefers-color-scheme:dark){{:root{{{_variables(DARK)};--best:#152c40}}}}
{"".join(f".c{i}{{color:var(--s{i})}}" for i in range(len(LIGHT)))}
.ramp{{background:linear-gradient(to right,{",".join(CIVIDIS)})}}
"""
STUDY_STYLE += """
a{color:var(--blue);text-underline-offset:.15em}.chart a{color:inherit}
.question{color:var(--soft);font-size:1.05rem}
.answer{font-size:1.3rem;line-height:1.4;font-weight:600;max-width:48rem;margin:1rem 0}
h2{overflow-wrap:anywhere}
.note{margin:.4rem 0}
.sorts th button{font:inherit;color:inherit;background:none;border:0;padding:0;margin:0;cursor:pointer;
text-align:inherit;position:relative;padding-right:1.1em}
.sorts th button::after{content:"↕";opacity:.35;position:absolute;right:0;bottom:0}
.sorts th[aria-sort=ascending] button::after{content:"↑";opacity:1}
.sorts th[aria-sort=descending] button::after{content:"↓";opacity:1}
.sorts th[aria-sort]{color:var(--ink)}
.sorts .marked>*{background:var(--best);font-weight:650}
.sorts .marked th{box-shadow:inset 3px 0 var(--blue)}
.sorts th:first-child{padding-left:.6rem}
.sorts thead th.number{white-space:normal;min-width:5.5rem}
.sorts tbody th{min-width:min(13rem,40vw)}
.sorts tbody td{min-width:4rem}
button:focus-visible,a:focus-visible,.chart:focus-visible{outline:2px solid var(--blue);outline-offset:2px}
.explored{display:grid;grid-template-columns:minmax(0,41rem) minmax(0,1fr);gap:1rem 1.75rem;align-items:start}
.canvas{position:relative}
.drawn{max-width:100%;height:auto;background:#fff;border-radius:4px}
.chart{touch-action:pan-y pinch-zoom}
.chart text{font-size:12px}
.chart .name{fill:var(--ink)}
.chart .base{stroke:var(--soft)}
.chart .row text{fill:var(--ink)}
.chart .row.marked text{font-weight:650}
.chart .row rect{fill:var(--best)}
.chart .line,.sample .line{stroke:currentColor;stroke-width:2}
.chart .line.dashed,.sample .line.dashed{stroke-width:2;stroke-dasharray:6 4}
.chart .many .line{stroke-width:1.2}.chart .many .on .line{stroke-width:2.4}
.chart .area{fill:currentColor;opacity:.16}
.chart .mark,.sample .mark{fill:currentColor;stroke:var(--page);stroke-width:1}
.chart .mark[style]{stroke:var(--soft);stroke-width:.6}
.chart .interval{fill:none;stroke:currentColor;stroke-width:1.4;opacity:.75}
.chart .bare .mark{opacity:0}
.chart.picked .series:not(.on){opacity:.22}
.chart .point.on .mark{opacity:1;stroke:var(--ink);stroke-width:1.5}
.chart .point.on .interval{opacity:1;stroke-width:2}
.chart .series.off{display:none}
.tip{position:absolute;z-index:1;pointer-events:none;background:var(--page);border:1px solid var(--soft);
border-radius:6px;padding:.35rem .6rem;font-size:.82rem;line-height:1.4;max-width:min(19rem,90%);overflow-wrap:anywhere;
box-shadow:0 2px 8px rgb(0 0 0/.2);font-variant-numeric:tabular-nums}
.tip[hidden]{display:none}
.tip div:first-child{font-weight:600}
.side .legend{list-style:none;margin:0 0 .6rem;padding:0;font-size:.875rem}
.side .legend li{margin:.15rem 0}
.side .legend bdi{color:var(--ink);overflow-wrap:anywhere}
.side .legend button{font:inherit;background:none;border:0;padding:0;text-align:left;cursor:pointer;color:inherit}
.side .legend button[aria-pressed=false]{opacity:.4;text-decoration:line-through}
.side .legend .sample{display:inline-block;width:2rem;height:1rem;vertical-align:-.15em;margin-right:.4rem}
.side summary{cursor:pointer;color:var(--soft);font-size:.875rem}
.side p{margin:.3rem 0}
.shades{display:flex;align-items:center;gap:.5rem;font-size:.82rem;color:var(--ink);margin:0 0 .6rem}
.shades i{flex:1 1 4rem;max-width:9rem;height:.8rem;border-radius:3px;border:1px solid var(--soft)}
.command{position:relative;background:var(--panel);border:1px solid var(--rule);border-radius:8px;
padding:.7rem 5.5rem .7rem .9rem}
.command pre{margin:0;white-space:pre-wrap;overflow-wrap:anywhere}
.command .copy{position:absolute;top:.5rem;right:.6rem;font:inherit;font-size:.82rem;color:var(--ink);
background:var(--page);border:1px solid var(--rule);border-radius:5px;padding:.15rem .6rem;cursor:pointer}
@media (max-width:50rem){.explored{grid-template-columns:minmax(0,1fr)}
.side ul.legend{display:flex;flex-wrap:wrap;gap:.1rem 1rem}}
@media (max-width:34rem){.chart text{font-size:15px}.answer{font-size:1.15rem}}
@media print{.tip,.copy,.sorts th button::after{display:none!important}
.explored{grid-template-columns:minmax(0,12cm) 1fr}
.command{padding-right:.9rem}.chart.picked .series:not(.on){opacity:1}}
"""
