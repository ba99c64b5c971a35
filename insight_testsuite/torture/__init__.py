"""Attempts to make the detector wrong, hang, end with a traceback or lose data, a module for each part.

A part is a module with a function run(trial); the first line of its docstring says what is tried.
"""
