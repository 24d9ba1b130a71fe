"""First cells of old notebooks: imports and small tables."""

PANDAS = "import pandas as pd, numpy as np"
SHOP = f"""{PANDAS}
df = pd.DataFrame({{'shop': ['a', 'a', 'b', 'b'], 'day': pd.date_range('2020-01-01', periods=4), 'units': [1, 2, 3, 5],
                   'price': [1.0, 2.5, np.nan, 4.0]}})"""
LEARN = f"""{PANDAS}
X = pd.DataFrame({{'a': [0.0, 1, 2, 3, 4, 5, 6, 7], 'b': [1.0, 0, 1, 0, 1, 0, 1, 1]}})
y = pd.Series([0, 0, 0, 1, 0, 1, 1, 1])"""
PLOT = "import matplotlib\nmatplotlib.use('Agg')\nimport matplotlib.pyplot as plt"
