"""What every HTTP service of telemq shares: serving, problem documents, pages without a CDN."""
