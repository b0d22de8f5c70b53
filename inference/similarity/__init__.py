"""Find the recorded incidents most like a text: what the handlers and the scripts share.

Each module does one job; the handlers in the folder above use them through `similarity.service`.
"""
