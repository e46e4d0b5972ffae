package main

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
)

// occupied asks the server itself which rooms have members, page by page.
func occupied(hubbub, key string) (map[string]bool, error) {
	rooms, after := map[string]bool{}, ""
	for more := true; more; {
		req, err := http.NewRequest(http.MethodGet, hubbub+"/api/v1/rooms?limit=1000&after="+url.QueryEscape(after), nil)
		if err != nil {
			return nil, err
		}
		req.Header.Set("Authorization", "Bearer "+key)
		resp, err := http.DefaultClient.Do(req)
		if err != nil {
			return nil, err
		}
		var page struct {
			Rooms []struct {
				Room    string
				Members int
			}
			More bool
		}
		err = json.NewDecoder(resp.Body).Decode(&page)
		resp.Body.Close()
		if err != nil || resp.StatusCode != http.StatusOK {
			return nil, fmt.Errorf("the snapshot: %s, %v", resp.Status, err)
		}
		for _, r := range page.Rooms {
			if after = r.Room; r.Members > 0 {
				rooms[r.Room] = true
			}
		}
		more = page.More
	}
	return rooms, nil
}
