"""Tests of the page /explore in a real Chromium.

A package, so that pytest ends the browser with the last test of this folder. While it runs, asyncio can't be used.
"""
