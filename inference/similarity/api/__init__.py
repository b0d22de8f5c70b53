"""What callers send and get: events of API Gateway, parameters, answers, routes, and the log line about each answer
(`events`).

No file is read here and nothing is computed.
"""
