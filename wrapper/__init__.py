"""Runs one alert program and speaks the alert protocol with it."""
