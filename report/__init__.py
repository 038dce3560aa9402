"""The report on runs: python -m report"""
