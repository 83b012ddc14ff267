"""Architecture search: a space of networks, samplers that propose candidates, and the reward that judges them."""
