"""Scorers give every component its importance; estimators compute what the scorers that look at outputs share."""
