"""The matrix of rights: every route x every principal x own, foreign and absent object; see matrix.py."""
