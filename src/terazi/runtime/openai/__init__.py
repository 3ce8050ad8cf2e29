"""OpenAI's protocol for engines that bring no server of their own."""
