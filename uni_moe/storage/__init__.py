"""Where registered models are kept: whole folders by key."""
