"""Network parts that baselines and REALM's variants share. Importing a module of it imports torch."""
