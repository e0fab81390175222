"""Why a model says what it says: which bases decide, and what its layers remember."""
