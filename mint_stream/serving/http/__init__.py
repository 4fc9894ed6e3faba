"""The service's HTTP side: questions, answers, problems, limits."""
