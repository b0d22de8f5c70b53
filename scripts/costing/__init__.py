"""Parts of `scripts/costs.py`: list prices, measured seconds, what the settings make, and the sums.

Each price stands in `prices`, and each measured or estimated quantity in `usage`. `rows` multiplies them.
"""
