"""An insurance lead funnel that behaves like one, with the chances that it hides.

    generate(5_000, end=...)                 rows of the contract, batch by batch
    hidden_chance(spine, "churn", ...)       the best possible prediction for a lead at a moment
    truth(5_000, end=...)                    what is hidden about each lead

The model of the funnel, from the ground up:

- **The surroundings** (`world`, `calendar`). Products have seasons (health in December, home and
  auto in spring and summer), consumers and agents have weekdays and hours in their state's time
  zone with daylight saving. Six sources have six campaigns each, with flights, a hidden worth and
  products that they draw. Agents have a specialty, a hidden skill, a capacity, a day of hiring;
  where more leads are expected on a desk than it can carry, calls, quotes and closings slow down
  (`care = 1 / (1 + 0.5 max(load - 1, 0))`).
- **A lead** (`births`). Its lasting quality `q` is the campaign's worth plus what credit, income
  and insurer tell plus a hidden part, which a household shares (correlation 0.8) and which a
  referrer passes on (0.7, and some of the referrer's visible quality). The premium follows from
  product, state, age, income and credit with a hidden spread of 12 %; a quote reveals it.
- **An open lead's day** (`dynamics`). A hidden intent `x` starts from quality and source, fades
  unless the lead is negotiating, and is moved by what happens; its level sets the rates of
  everything inbound, and with the stage of the funnel the chance of binding. A lead silent for 45
  days is soon closed as lost. The formulas are in that module.
- **A customer's day** (`customers`). A hidden dissatisfaction grows by complaints and renewals at
  a higher premium, shows in calls and visits to the page on which one cancels, and ends policies.
- **Time and rows** (`timeline`, `rows`). Events get their time of day, and their time of arrival:
  mostly seconds later, an eighth of the e-mail events with the next six-hourly batch, one event in
  150 hours or days late. Nothing happens or arrives at or after the end.
- **Dirt** (`dirt`). One row in some thousands breaks the contract, in batches of its own.
- **The hidden chances** (`chances`). The step of a day is a function of the state, the day and a
  random stream, so that futures can be simulated from any state by the code that made the data.

Most of what can be known of intent is visible, as the visible events themselves move it. Measured
with weekly moments, the newest quarter as test, on funnels of 5,000 to 25,000 leads and two seeds:
the hidden chance reaches ROC AUC 0.90 to 0.91 for conversion and 0.93 to 0.95 for churn (accuracy
0.90), and gradient-boosted trees over counts and recencies of the events come within 0.007 to 0.016
for conversion and 0.005 to 0.009 for churn. Differences of a few thousandths are chance.

Everything is deterministic in (leads, seed, end, days, dirt). Leads are simulated in chunks of
20,000 with random streams of their own, so memory does not grow with their number.
"""

from leadml_pipelines.sources.synthetic.chances import HORIZON_DAYS, hidden_chance, truth
from leadml_pipelines.sources.synthetic.generator import MAX_ROWS, Batch, generate

__all__ = ["HORIZON_DAYS", "MAX_ROWS", "Batch", "generate", "hidden_chance", "truth"]
