//! The installer and the sallyport command.
