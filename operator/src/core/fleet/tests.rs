mod pods;
mod rollout;
mod simulation;
mod world;
