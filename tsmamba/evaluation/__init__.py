"""How good a forecast is: held-out blocks, metrics, conformal intervals, and the choice of a method."""
