"""What callers send and get: events of API Gateway, parameters, answers, routes.

No file is read here and nothing is computed.
"""
