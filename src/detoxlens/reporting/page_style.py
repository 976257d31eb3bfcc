"""CSS of reports/index.html: light and dark, wide and narrow screens, print. No script, nothing loaded."""

from __future__ import annotations

from detoxlens.attribution.heatmap import STYLE as HEATMAP_STYLE

NARROW = "(max-width: 48rem)"
"""Screens on which a figure's panels stand one below the other."""
_STYLE = """
:root { color-scheme: light dark; --paper: #fff; --ink: #1c1c1c; --soft: #595959; --line: #d9d9d9; --tint: #f4f4f2;
        --link: #00569a; --red: #b3003c; --warn: #8a4b00; --pass: #00664a; --fail: #b3003c; --shade: rgba(0,0,0,.16); }
@media (prefers-color-scheme: dark) {
  :root { --paper: #141414; --ink: #e6e6e6; --soft: #a6a6a6; --line: #3a3a3a; --tint: #222; --link: #7cc0ff;
          --red: #ff7d9c; --warn: #f0b35b; --pass: #6fd6b2; --fail: #ff7d9c; --shade: rgba(255,255,255,.16); }
  figure img { filter: invert(.92) hue-rotate(180deg); }
}
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, sans-serif; color: var(--ink); background: var(--paper); max-width: 72rem;
       margin: 2rem auto; padding: 0 1.25rem; overflow-wrap: break-word; }
h1 { font-size: 1.8rem; line-height: 1.2; margin: 0 0 .3rem; }
h2 { font-size: 1.3rem; margin: 3rem 0 .8rem; border-bottom: 1px solid var(--line); padding-bottom: .3rem; }
h3 { font-size: 1.05rem; margin: 1.6rem 0 .2rem; } h4 { margin: .2rem 0 .6rem; font-size: 1rem; }
p, ul, dl { max-width: 50rem; } ul { margin-top: .2rem; padding-left: 1.2rem; }
a { color: var(--link); } nav a { margin-right: 1rem; white-space: nowrap; display: inline-block; }
.summary { color: var(--soft); margin: .2rem 0; } .glossary { font-size: .9rem; color: var(--soft); }
.glossary b { color: var(--ink); }
.lead { font-size: 1.06rem; margin: .7rem 0; max-width: 56rem; }
figure { margin: 1.2rem 0 2rem; } 
figure img { display: block; height: auto; width: 100%; min-width: var(--width); max-width: calc(1.45 * var(--width)); }
.caption, figcaption { color: var(--soft); font-size: .88rem; max-width: 50rem; margin: 1.6rem 0 .3rem; }
figcaption { margin-top: .3rem; }
.wide { overflow-x: auto; background:
  linear-gradient(to right, var(--paper) 40%, transparent) left / 2.5rem 100% local no-repeat,
  linear-gradient(to left, var(--paper) 40%, transparent) right / 2.5rem 100% local no-repeat,
  linear-gradient(to right, var(--shade), transparent) left / 1rem 100% scroll no-repeat,
  linear-gradient(to left, var(--shade), transparent) right / 1rem 100% scroll no-repeat; }
table { border-collapse: collapse; font-size: .88rem; margin: 0 0 1.4rem; }
.wide { margin-bottom: 1.4rem; } .wide table, figure .wide { margin-bottom: 0; }
th, td { padding: .3rem 0 .3rem 1.3rem; border-bottom: 1px solid var(--line); text-align: right; white-space: nowrap;
         font-variant-numeric: tabular-nums; vertical-align: top; }
th { border-bottom: 1.5px solid var(--ink); font-weight: 600; white-space: normal; vertical-align: bottom; }
.left { text-align: left; padding-left: 0; padding-right: .6rem; }
.first td { border-top: 2px solid var(--soft); }
.prose td { white-space: normal; text-align: left; padding: .35rem 1rem .35rem 0; }
.prose th { text-align: left; padding: .3rem 1rem .3rem 0; }
.prose td.verdict { white-space: nowrap; }
.verdict { font-weight: 600; } .passed, .holds { color: var(--pass); } .failed, .does-not-hold { color: var(--fail); }
.absent, .not-tested, .not-shown, .note { color: var(--soft); }
.warnings { border-left: 4px solid #e69f00; background: var(--tint); padding: .5rem 1rem; max-width: 50rem;
            margin: 1.2rem 0; }
.warnings h2 { margin: .2rem 0; font-size: 1rem; color: var(--warn); border: 0; }
.provenance { border: 1px solid var(--line); border-radius: 6px; padding: .3rem 1rem; font-size: .9rem; }
.provenance dl { display: grid; grid-template-columns: minmax(7rem, max-content) 1fr; gap: .15rem 1rem;
  max-width: none; }
.provenance dt { margin: 0; } .provenance dd { overflow-wrap: anywhere; }
details { border: 1px solid var(--line); border-radius: 6px; padding: .6rem 1rem; margin: 1rem 0; }
summary { cursor: pointer; font-weight: 600; }
.example { border-top: 1px solid var(--line); padding: .8rem 0; margin-top: .6rem; }
.columns { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(19rem, 100%), 1fr)); gap: 1rem; }
.card { min-width: 0; } .card p { margin: .3rem 0; } .card .caption { font-size: .82rem; }
.card details { padding: .3rem .6rem; margin: .5rem 0 0; } .card summary { font-weight: 400; font-size: .88rem; }
.said, .read { white-space: pre-wrap; overflow-wrap: anywhere; }
.read { font: .8rem/1.7 ui-monospace, monospace; background: var(--tint); padding: .3rem .5rem; border-radius: 4px; }
.who { font-weight: 600; } .score { font-weight: 400; color: var(--soft); font-variant-numeric: tabular-nums; }
.toxic { color: var(--red); font-weight: 600; }
.rude { background: none; color: var(--red); text-decoration: underline; text-underline-offset: .15em; }
.scale { display: inline-block; width: 6rem; height: .8em; vertical-align: baseline;
         background: linear-gradient(to right, rgba(0,114,178,0), rgba(0,114,178,.75)); border: 1px solid var(--line); }
.key { font-size: .88rem; color: var(--soft); }
.heatmap th, .heatmap td { border-bottom: 0; vertical-align: middle; } .heatmap { margin: 0; }
dt { font-weight: 600; margin-top: .6rem; } dd { margin-left: 0; } code { background: var(--tint); padding: 0 .25em; }
footer { color: var(--soft); font-size: .85rem; margin-top: 3rem; }
@media NARROW {
  figure img { min-width: 0; max-width: 32rem; }
}
@media (max-width: 34rem) {
  body { margin: 1rem auto; padding: 0 .8rem; } h1 { font-size: 1.45rem; }
  .provenance dl { display: block; } .provenance dt { margin-top: .5rem; }
  details { padding: .5rem .6rem; }
  .prose thead { display: none; } .prose tr { display: block; border-bottom: 1px solid var(--line); padding: .4rem 0; }
  .prose td { display: block; border: 0; padding: .1rem 0; }
}
@media print { details { border: 0; } nav { display: none; } }
"""
STYLE = _STYLE.replace("NARROW", NARROW) + HEATMAP_STYLE
