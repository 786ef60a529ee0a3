"""The learning proof: small data with known answers, which a backbone learns in minutes, and who checks it."""
