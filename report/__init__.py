"""The report on runs: python -m results.report"""
