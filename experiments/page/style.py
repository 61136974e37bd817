"""The style sheet of all pages, for light and dark and for wide and narrow screens; it loads nothing else."""

from experiments.page.markup import Markup

# Channels take these colours in turn. Each bar also has its channel's name, so colour is never the only label.
NUM_COLORS = 6
STYLE = Markup("""
:root { color-scheme: light dark; --text: #1d2329; --soft: #59636e; --page: #f6f7f9; --card: #fff; --line: #d5dae0;
  --hit: #fff3c4; --hit-line: #b98900; --tag: #e4ebf5;
  --c0: #3566c0; --c1: #c2571a; --c2: #2a8752; --c3: #8a4fb5; --c4: #b03060; --c5: #6b7280; }
@media (prefers-color-scheme: dark) { :root { --text: #e4e8ec; --soft: #9ba6b2; --page: #14181c; --card: #1d2329;
  --line: #38414b; --hit: #40360f; --hit-line: #d9ab2b; --tag: #2b3a50;
  --c0: #7ba6f5; --c1: #f0945a; --c2: #5fc28b; --c3: #c193e8; --c4: #ec7ba3; --c5: #a3acb8; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 72rem; padding: 1rem; background: var(--page); color: var(--text);
  font: 1rem/1.5 system-ui, sans-serif; overflow-wrap: anywhere; }
h1, h2, h3, h4 { line-height: 1.25; margin: 0 0 .5rem; }
h1 { font-size: 1.6rem; } h2 { font-size: 1.3rem; margin-top: 2.5rem; } h3 { font-size: 1.1rem; }
h4 { font-size: 1rem; }
p { margin: 0 0 .75rem; max-width: 46rem; }
.soft { color: var(--soft); } .small { font-size: .85rem; } .whole { white-space: nowrap; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: .5rem; padding: 1rem; margin: 1rem 0; }
.side { display: grid; gap: 1.25rem; grid-template-columns: repeat(auto-fit, minmax(min(16rem, 100%), 1fr)); }
ol, ul { margin: 0 0 .75rem; padding-left: 1.6rem; } li { margin-bottom: .5rem; }
code { font-size: .8em; color: var(--soft); }
.tag { display: inline-block; background: var(--tag); border-radius: .3rem; padding: 0 .4rem; font-size: .8rem;
  margin-right: .3rem; }
.next { background: var(--hit); border-left: .25rem solid var(--hit-line); padding: .25rem .5rem; }
.tag.hit { background: var(--hit-line); color: var(--card); font-weight: 600; }
table { border-collapse: collapse; margin-bottom: .75rem; } caption { text-align: left; font-weight: 600; }
th, td { text-align: left; padding: .25rem .9rem .25rem 0; border-bottom: 1px solid var(--line); font-weight: 400; }
td.number { text-align: right; font-variant-numeric: tabular-nums; }
.bar { display: grid; grid-template-columns: 6rem 1fr 4rem; gap: .5rem; align-items: center; font-size: .8rem;
  max-width: 34rem; line-height: 1.3; }
.track { position: relative; height: .7rem; }
.fill, .zero { position: absolute; top: 0; bottom: 0; } .fill { border-radius: .15rem; }
.zero { border-left: 1px solid var(--soft); }
.bar .number { text-align: right; font-variant-numeric: tabular-nums; }
.c0 { background: var(--c0); } .c1 { background: var(--c1); } .c2 { background: var(--c2); }
.c3 { background: var(--c3); } .c4 { background: var(--c4); } .c5 { background: var(--c5); }
""")
