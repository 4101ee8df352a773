"""Bounces, complaints and auto-replies: what other machines tell us about our mail, understood.

Pure: no database, no asyncio, no clock. `outcome` holds the values, `trouble` decides what a failure at the dialogue
means, `classify` names the cause, `reader` reads whole messages, `policy` decides what follows for the person.
"""
