# %% [markdown]
# # Fit the beginning of a curve, predict the rest, and see how that went
#
# One bundled curve, its first quarter fitted under a law: the held-out cells are then scored. One
# curve proves nothing about a law; the point is how to ask.

# %%
import warnings

from bayesicl import CurveWarning, Settings, bands, fit, predict, read_curves, score, score_cells
from bayesicl.data import path

warnings.simplefilter("ignore", CurveWarning)
curves = read_curves(
    path(),
    outcome="nll",
    where="task == 'antonyms' and labels == 'gold' and model == 'Gemma-3-270M' and shots <= 24",
).hold_out(fit_shots="50%")
[tree] = fit(curves, "power", settings=Settings(warmup=300, draws=500))

# %%
print(bands(predict(tree, [0, 8, 16, 24])).round(3))
cells = score_cells(tree)
print(score(cells).round(3))
assert cells["pit"].between(0, 1).all()
