"""What tests of every rung share: scripted peers, name servers and builders. Imported by tests only."""
