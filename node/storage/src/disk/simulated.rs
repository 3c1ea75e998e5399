//! A disk in memory that crashes, fills up, fails and rots on command.
